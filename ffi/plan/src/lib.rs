//! The C header of `#define`s for a model: the text that the command `jostle-plan` writes.

use jostle::checkpoint;
use jostle::config::{Field, Value};
use jostle::{Error, OptimizerState, Plan};

/// The sizes that the header defines, most of them named like the fields of jostle_plan: name, bytes, and what they are
/// for.
fn sizes(plan: &Plan, device: bool) -> Result<Vec<(&'static str, usize, &'static str)>, Error> {
    // What a microcontroller can address: the core has only asked whether this machine can.
    let most = if device { i32::MAX as usize } else { isize::MAX as usize };
    let bytes = |elements: usize| elements.saturating_mul(4);
    let sizes = vec![
        ("parameters", bytes(plan.parameters), "float: those that are trained"),
        ("frozen", bytes(plan.frozen), "float: those that are not, only read; where it is 0, hand over NULL"),
        ("gradients", bytes(plan.gradients), "float"),
        ("optimizer", bytes(plan.optimizer), "float; where it is 0, hand over NULL"),
        ("workspace", bytes(plan.workspace()), "float: activations and scratch"),
        ("batch", bytes(plan.batch), "int32_t: tokens and targets"),
        ("training", plan.bytes(), "the sum of the above but for the frozen ones"),
        ("generation", bytes(plan.generation), "float: a generator's memory"),
        ("window", bytes(plan.config.context), "int32_t: a generator's window"),
        ("order", bytes(plan.config.vocab), "uint32_t: scratch for drawing a token"),
        ("checkpoint", checkpoint::size(plan, true, &[])?, "with the optimizer's state, without metadata"),
    ];
    match sizes.iter().find(|(_, size, _)| *size > most) {
        Some((what, ..)) => Err(Error::TooLarge { what }),
        None => Ok(sizes),
    }
}

/// A header for this plan, made by this command, for a microcontroller or this machine; `prefix` begins every name.
pub fn header(command: &str, prefix: &str, device: bool, plan: &Plan) -> Result<String, Error> {
    let (config, options) = (&plan.config, &plan.options);
    let optimizer = match options.optimizer {
        OptimizerState::None => "JOSTLE_STATE_NONE",
        OptimizerState::Momentum => "JOSTLE_STATE_MOMENTUM",
        OptimizerState::AdamW => "JOSTLE_STATE_ADAMW",
    };
    let integer = |n: usize| format!("{n}u");
    let frozen: Vec<String> =
        plan.tensors().filter(|tensor| tensor.frozen).map(|tensor| format!("\"{}\"", tensor.name)).collect();
    let names = if frozen.is_empty() {
        String::new()
    } else {
        let names = frozen.join(",\n    ");
        format!(
            "\n/* The tensors that are not trained, in the order in which their values lie. */\n\
             static const char *const {prefix}_FROZEN_NAMES[] = {{\n    {names}\n}};\n"
        )
    };
    // In the order of the structs' fields, which C++20's designated initializers must have.
    let mut values = *config;
    let value = |field: &Field| match values.value(*field) {
        Value::Size(size) => integer(*size),
        Value::Rate(number) | Value::Fraction(number) => format!("{number:?}f"),
        Value::Flag(flag) => integer((*flag).into()),
        Value::Activation(activation) => format!("JOSTLE_{}", activation.name().to_uppercase()),
    };
    let values: Vec<String> = Field::ALL.iter().map(value).collect();
    let config: Vec<(&str, String)> = Field::ALL.iter().map(|field| field.name()).zip(values).collect();
    let options = [
        ("batch", integer(options.batch)),
        ("threads", integer(options.threads)),
        ("optimizer", optimizer.to_owned()),
        ("recompute", integer(options.recompute.into())),
        ("fused", integer(options.fused.into())),
        ("frozen", if frozen.is_empty() { "0".to_owned() } else { format!("{prefix}_FROZEN_NAMES") }),
        ("frozen_count", integer(frozen.len())),
    ];
    let name = |field: &str| format!("{prefix}_{}", field.to_uppercase());
    let defines = |fields: &[(&str, String)]| -> String {
        fields.iter().map(|(field, value)| format!("#define {} {value}\n", name(field))).collect()
    };
    let initializer = |of: &str, fields: &[(&str, String)]| -> String {
        let fields: String =
            fields.iter().map(|(f, _)| format!(", \\\n        .{f} = {}", name(f))).collect();
        format!(
            "#define {} {{ \\\n        .struct_size = (uint32_t)sizeof(struct jostle_{of}){fields} \\\n    }}\n",
            name(of)
        )
    };
    let sizes: String = sizes(plan, device)?
        .iter()
        .map(|(what, bytes, comment)| format!("#define {}_SIZE {bytes}u /* {comment} */\n", name(what)))
        .collect();
    let machine = if device { "microcontrollers" } else { std::env::consts::ARCH };
    Ok(format!(
        "\
/* {command}
 *
 * A model, and the bytes of each of its buffers on {machine}. Written by jostle-plan {version}:
 * to change it, call that again. Static arrays of these sizes are aligned as jostle wants them:
 *
 *     static float parameters[{prefix}_PARAMETERS_SIZE / sizeof(float)];
 */
#ifndef {prefix}_PLAN_H
#define {prefix}_PLAN_H

#include <jostle.h>

#if JOSTLE_VERSION_MAJOR != {major} || JOSTLE_VERSION_MINOR != {minor}
#error \"made for jostle {major}.{minor}: call that version's jostle-plan\"
#endif

/* The model, and what its memory depends on. */
{config_defines}{options_defines}{names}
/* Bytes. */
{sizes}
/* jostle_config config = {prefix}_CONFIG; */
{config_initializer}
/* jostle_options options = {prefix}_OPTIONS; */
{options_initializer}
#endif
",
        version = env!("CARGO_PKG_VERSION"),
        major = env!("CARGO_PKG_VERSION_MAJOR"),
        minor = env!("CARGO_PKG_VERSION_MINOR"),
        config_defines = defines(&config),
        options_defines = defines(&options),
        config_initializer = initializer("config", &config),
        options_initializer = initializer("options", &options),
    ))
}

//! The C header of `#define`s for a model: the text that the command `jostle-plan` writes.

use jostle::checkpoint;
use jostle::fields::{Field, Value};
use jostle::{Error, OptimizerState, Plan};

/// The sizes that the header defines: name, bytes, and a comment. Most names are fields of jostle_plan.
fn sizes(plan: &Plan, device: bool) -> Result<Vec<(&'static str, usize, &'static str)>, Error> {
    // The core has checked that this machine can address the buffers, not that a microcontroller can.
    let most = if device { i32::MAX as usize } else { isize::MAX as usize };
    let bytes = |elements: usize| elements.saturating_mul(4);
    let sizes = vec![
        ("parameters", bytes(plan.parameters()), "float: the parameters that are trained"),
        ("frozen", bytes(plan.frozen()), "float: the frozen parameters, only read; if it is 0, pass NULL"),
        ("gradients", bytes(plan.gradients()), "float: the gradients"),
        ("optimizer", bytes(plan.optimizer()), "float: the optimiser's state; if it is 0, pass NULL"),
        ("workspace", bytes(plan.workspace()), "float: activations and scratch"),
        ("batch", bytes(plan.batch()), "int32_t: tokens and targets"),
        ("training", plan.bytes(), "the sum of the above, except the frozen parameters"),
        ("generation", bytes(plan.generation()), "float: a generator's memory"),
        ("window", bytes(plan.config().context), "int32_t: a generator's window"),
        ("order", bytes(plan.config().vocab), "uint32_t: scratch for drawing a token"),
        ("checkpoint", checkpoint::size(plan, true, &[])?, "with the optimiser's state, without metadata"),
    ];
    match sizes.iter().find(|(_, size, _)| *size > most) {
        Some((what, ..)) => Err(Error::TooLarge { what }),
        None => Ok(sizes),
    }
}

/// The header of a plan, for a microcontroller or this machine. `command` is the command line that makes it; every name
/// begins with `prefix`.
pub fn header(command: &str, prefix: &str, device: bool, plan: &Plan) -> Result<String, Error> {
    let (config, options) = (plan.config(), plan.options());
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
            "\n/* The tensors that are not trained, in the order of their values. */\n\
             static const char *const {prefix}_FROZEN_NAMES[] = {{\n    {names}\n}};\n"
        )
    };
    // In the order of the structs' fields, which C++20's designated initializers must have.
    let mut values = *config;
    let value = |field: &Field| match values.value(*field) {
        Value::Size(size) | Value::DerivedSize(size) => integer(*size),
        Value::Rate(number) | Value::Fraction(number) | Value::Positive(number) => format!("{number:?}f"),
        Value::Flag(flag) => integer((*flag).into()),
        Value::Choice(choice) => {
            let field =
                if *field == Field::Activation { String::new() } else { field.name().to_uppercase() + "_" };
            format!("JOSTLE_{field}{}", choice.names()[choice.number()].to_uppercase())
        }
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
        ("head_rows", integer(options.head_rows)),
        // The base is among the names.
        ("freeze_base", integer(0)),
        ("reserved", integer(0)),
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
 * run it again to change this file. jostle needs no more alignment than these static arrays have:
 *
 *     static float parameters[{prefix}_PARAMETERS_SIZE / sizeof(float)];
 */
#ifndef {prefix}_PLAN_H
#define {prefix}_PLAN_H

#include <jostle.h>

#if JOSTLE_VERSION_MAJOR != {major} || JOSTLE_VERSION_MINOR != {minor}
#error \"made for jostle {major}.{minor}: run the jostle-plan of the installed version\"
#endif

/* The model, and the options that its memory depends on. */
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

//! A file with a model's numbers, for comparing other engines.

use std::error::Error;
use std::path::Path;

use jostle::{Config, Dropout, InstructionSet, Options, Shape};
use jostle_pool::Pool;
use safetensors::{Dtype, serialize_to_file, tensor::TensorView};

use crate::session::Session;

/// The number of updates whose losses are in the file.
const STEPS: usize = 4;
/// The factor of initial matrices. With the usual small values, GELU is nearly a parabola, attention nearly a mean, and no
/// gradient is clipped, so that errors in them would not show.
const SCALE: f32 = 5.0;

/// Writes a safetensors file: parameters under their names, `tokens` and `targets` of one batch, and its gradients as
/// `gradient.<name>`. `losses` has the loss before each of the first updates on that batch. No dropout.
pub fn write(config: &Config, options: &Options, path: &Path) -> Result<(), Box<dyn Error>> {
    let pool = Pool::new(options.threads)?;
    let config = Config { dropout: Dropout::NONE, ..*config };
    let mut session = Session::of(&config, options)?;
    let plan = session.plan;
    let (mut trainer, text) = session.trainer(InstructionSet::detect(), &pool)?;
    let shape = Shape { sequences: plan.options().batch, length: plan.config().context };
    let (tokens, targets) = (&text[..shape.rows()], &text[1..=shape.rows()]);

    for tensor in plan.tensors().filter(|tensor| tensor.rank == 2) {
        let values = &mut trainer.buffers().parameters[tensor.offset..tensor.offset + tensor.len()];
        values.iter_mut().for_each(|value| *value *= SCALE);
    }
    let parameters = floats(trainer.buffers().parameters);
    let (mut gradients, mut losses) = (Vec::new(), Vec::new());
    for step in 0..STEPS {
        let loss = trainer.accumulate(tokens, targets, shape, shape.rows())?;
        if step == 0 {
            gradients = floats(trainer.buffers().gradients);
        }
        losses.push(trainer.update(loss)?.loss);
    }

    let [tokens, targets] = [tokens, targets].map(|ids| ids.iter().flat_map(|id| id.to_le_bytes()).collect());
    let (ids, losses): ([Vec<u8>; 2], _) = ([tokens, targets], floats(&losses));
    let rows = vec![shape.sequences, shape.length];
    let mut views = vec![
        ("tokens".into(), TensorView::new(Dtype::I32, rows.clone(), &ids[0])?),
        ("targets".into(), TensorView::new(Dtype::I32, rows, &ids[1])?),
        ("losses".into(), TensorView::new(Dtype::F32, vec![STEPS], &losses)?),
    ];
    for tensor in plan.tensors() {
        let bytes = 4 * tensor.offset..4 * (tensor.offset + tensor.len());
        let shape = &tensor.shape[..tensor.rank];
        for (prefix, values) in [("", &parameters), ("gradient.", &gradients)] {
            let view = TensorView::new(Dtype::F32, shape.to_vec(), &values[bytes.clone()])?;
            views.push((format!("{prefix}{}", tensor.name), view));
        }
    }
    Ok(serialize_to_file(views, None, path)?)
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

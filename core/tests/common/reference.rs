//! GPT-2's forward pass in f64, as plain as possible: the oracle of the gradient checks.

use jostle::{Activation, Config, Plan};

type Rows = Vec<Vec<f64>>;

/// The mean loss over targets that are not -1, of one sequence.
pub fn loss(config: &Config, plan: &Plan, parameters: &[f64], tokens: &[i32], targets: &[i32]) -> f64 {
    let tensor = |name: &str| {
        plan.tensors()
            .find(|tensor| tensor.name.to_string() == name)
            .map(|tensor| &parameters[tensor.offset..tensor.offset + tensor.len()])
    };
    let weight = |name: &str| tensor(&format!("{name}.weight")).unwrap();
    let linear = |x: &Rows, name: &str| -> Rows {
        let weight = weight(name);
        let bias = tensor(&format!("{name}.bias"));
        x.iter()
            .map(|x| {
                let columns = weight.len() / x.len();
                let column = |j: usize| {
                    bias.map_or(0.0, |bias| bias[j])
                        + x.iter().enumerate().map(|(i, x)| x * weight[i * columns + j]).sum::<f64>()
                };
                (0..columns).map(column).collect()
            })
            .collect()
    };
    let norm = |x: &Rows, name: &str| -> Rows {
        let (weight, bias) = (weight(name), tensor(&format!("{name}.bias")));
        x.iter()
            .map(|x| {
                let n = x.len() as f64;
                let mean = x.iter().sum::<f64>() / n;
                let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
                let scale = 1.0 / (variance + f64::from(config.norm_epsilon)).sqrt();
                let one = |(i, x): (usize, &f64)| (x - mean) * scale * weight[i] + bias.map_or(0.0, |b| b[i]);
                x.iter().enumerate().map(one).collect()
            })
            .collect()
    };
    let add = |x: &Rows, y: &Rows| -> Rows {
        x.iter().zip(y).map(|(x, y)| x.iter().zip(y).map(|(x, y)| x + y).collect()).collect()
    };
    let gelu = |x: f64| match config.activation {
        Activation::SwiGlu => unreachable!("a GPT-2"),
        Activation::Gelu => 0.5 * x * (1.0 + libm::erf(x / 2.0_f64.sqrt())),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + f64::from(0.044715_f32) * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
    };

    let c = config.width;
    let row = |matrix: &[f64], i: usize| matrix[i * c..(i + 1) * c].to_vec();
    let embed = |(position, token): (usize, &i32)| -> Vec<f64> {
        let (token, position) = (row(weight("wte"), *token as usize), row(weight("wpe"), position));
        token.iter().zip(&position).map(|(a, b)| a + b).collect()
    };
    let mut x: Rows = tokens.iter().enumerate().map(embed).collect();
    for layer in 0..config.layers {
        let name = |part: &str| format!("h.{layer}.{part}");
        let qkv = linear(&norm(&x, &name("ln_1")), &name("attn.c_attn"));
        x = add(&x, &linear(&attend(config, &qkv), &name("attn.c_proj")));
        let mut hidden = linear(&norm(&x, &name("ln_2")), &name("mlp.c_fc"));
        hidden.iter_mut().flatten().for_each(|x| *x = gelu(*x));
        x = add(&x, &linear(&hidden, &name("mlp.c_proj")));
    }
    let head = if config.tied { weight("wte") } else { weight("lm_head") };
    let (mut sum, mut counted) = (0.0, 0.0);
    for (x, target) in norm(&x, "ln_f").iter().zip(targets).filter(|(_, target)| **target != -1) {
        let logit = |i: usize| x.iter().zip(&row(head, i)).map(|(a, b)| a * b).sum::<f64>();
        let total: f64 = (0..config.vocab).map(|i| logit(i).exp()).sum();
        sum += total.ln() - logit(*target as usize);
        counted += 1.0;
    }
    sum / counted
}

fn attend(config: &Config, qkv: &Rows) -> Rows {
    let (c, d) = (config.width, config.width / config.heads);
    let mut out = vec![vec![0.0; c]; qkv.len()];
    for head in 0..config.heads {
        let part = |row: usize, which: usize| &qkv[row][which * c + head * d..][..d];
        for (i, out) in out.iter_mut().enumerate() {
            let score = |j: usize| part(i, 0).iter().zip(part(j, 1)).map(|(q, k)| q * k).sum::<f64>();
            let weights: Vec<f64> = (0..=i).map(|j| (score(j) / (d as f64).sqrt()).exp()).collect();
            let total: f64 = weights.iter().sum();
            for (j, weight) in weights.iter().enumerate() {
                for (out, value) in out[head * d..][..d].iter_mut().zip(part(j, 2)) {
                    *out += weight / total * value;
                }
            }
        }
    }
    out
}

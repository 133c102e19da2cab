//! All parameters in one buffer, in the order of a plan that freezes none: initial values, checkpoints and files of
//! others have that order.

use super::{Options, Plan};
use crate::error::{Error, exact_length};
use crate::layout::Frozen;

impl Plan {
    /// The plan that differs in freezing no tensor.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if its buffers exceed the memory that this machine can address.
    pub fn unfrozen(&self) -> Result<Plan, Error> {
        Plan::new(&self.config, &Options { frozen: Frozen::NONE, ..self.options })
    }

    /// Copies the trained and the frozen parameters to `all`, in the order of [`Plan::unfrozen`].
    ///
    /// # Errors
    /// [`Error::Length`] if `all` is not as long as the two together, or these are not as the plan says.
    pub fn gather(&self, parameters: &[f32], frozen: &[f32], all: &mut [f32]) -> Result<(), Error> {
        self.check_order(parameters.len(), frozen.len(), all.len())?;
        let mut rest = all;
        for tensor in self.tensors() {
            let from = if tensor.frozen { frozen } else { parameters };
            let from = from.get(tensor.offset..).and_then(|from| from.get(..tensor.len()));
            if let (Some(from), Some(to)) = (from, rest.split_off_mut(..tensor.len())) {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    /// Copies `all`, in the order of [`Plan::unfrozen`], to the trained and the frozen parameters.
    ///
    /// # Errors
    /// As for [`Plan::gather`].
    pub fn scatter(&self, all: &[f32], parameters: &mut [f32], frozen: &mut [f32]) -> Result<(), Error> {
        self.check_order(parameters.len(), frozen.len(), all.len())?;
        let mut rest = all;
        for tensor in self.tensors() {
            let to = if tensor.frozen { &mut *frozen } else { &mut *parameters };
            let to = to.get_mut(tensor.offset..).and_then(|to| to.get_mut(..tensor.len()));
            if let (Some(from), Some(to)) = (rest.split_off(..tensor.len()), to) {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    fn check_order(&self, parameters: usize, frozen: usize, all: usize) -> Result<(), Error> {
        exact_length("parameters", parameters, self.parameters)?;
        exact_length("frozen parameters", frozen, self.frozen)?;
        exact_length("all parameters", all, self.parameters.saturating_add(self.frozen))
    }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::super::{Frozen, Options, Plan};
    use crate::config::Config;
    use crate::error::Error;

    #[test]
    fn scattered_parameters_lie_where_the_tensors_say_and_gather_again() {
        let config = Config::new(11, 4, 1, 2, 4);
        let frozen = Frozen::named(&config, ["wpe.weight", "h.0.attn.c_attn.weight"]).unwrap();
        let plan = Plan::new(&config, &Options { frozen, ..Options::new(1) }).unwrap();
        let whole = plan.unfrozen().unwrap();
        let all: Vec<f32> = (0..whole.parameters).map(|i| i as f32).collect();
        let (mut trained, mut kept) = (vec![0.0; plan.parameters], vec![0.0; plan.frozen]);
        plan.scatter(&all, &mut trained, &mut kept).unwrap();
        for (tensor, in_all) in plan.tensors().zip(whole.tensors()) {
            let values = if tensor.frozen { &kept } else { &trained };
            assert_eq!(values[tensor.offset..][..tensor.len()], all[in_all.offset..][..in_all.len()]);
        }
        let mut again = vec![0.0; all.len()];
        plan.gather(&trained, &kept, &mut again).unwrap();
        assert_eq!(again, all);
        let (given, wanted) = (all.len() - 1, all.len());
        let error = Error::Length { what: "all parameters", given, wanted };
        assert_eq!(plan.gather(&trained, &kept, &mut again[1..]), Err(error));
    }
}

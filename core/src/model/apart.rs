//! Workers that go through a whole pass apart from each other: each takes some of the sequences, in a part of the workspace
//! of its own, as if they were all. They meet at the loss, and add to the gradients one behind the other, as micro-batches
//! do.

use super::{Gradients, Part, Pass, Stage, Training, part};
use crate::double::Double;
use crate::layout::{Regions, Shape, Workspace};
use crate::parallel::{Compute, Leg, MOST_IN_RELAY, Serial, Share, Units};

impl Pass<'_> {
    /// How many workers go apart; 1 where all that there are go together.
    pub(super) fn workers_apart(&self) -> usize {
        let threads = self.compute.parallel.threads();
        if self.plan.options.fused || self.plan.together(self.shape, threads) {
            return 1;
        }
        let work = self.rows().saturating_mul(self.plan.parameters);
        self.compute.workers(self.shape.sequences, work, self.plan.options.threads.min(MOST_IN_RELAY))
    }

    /// Forward and [`Pass::losses`].
    pub(super) fn losses_apart(
        &self,
        workers: usize,
        regions: &mut Regions<'_>,
        targets: &[i32],
        counted: usize,
    ) -> f64 {
        self.apart(workers, regions, &mut [], |pass, share, workspace, _| {
            pass.forward_trusted(workspace);
            let targets = part(targets, &share.of(self.shape.sequences), self.shape.length);
            pass.losses(workspace, targets, counted);
        });
        Double::sum_of(regions.losses.iter().copied()).get()
    }

    /// The gradients of all parameters, after [`Pass::losses_apart`] with as many workers.
    pub(super) fn backward_apart(
        &self,
        workers: usize,
        regions: &mut Regions<'_>,
        gradients: &mut [f32],
        mode: Gradients,
    ) {
        self.apart(workers, regions, gradients, |pass, _, workspace, mut leg| {
            let mode = if leg.is_first() { mode } else { Gradients::Add };
            for stage in Stage::all(self.plan) {
                if let Stage::Backward(stage) = stage {
                    pass.backward_stage(stage, &Part::whole(self.plan), workspace);
                    pass.gradients_in_turn(stage, &mut leg, mode, workspace, workers);
                }
            }
        });
    }

    /// Calls `task` for each worker, with a pass of its sequences and their workspace.
    fn apart(
        &self,
        workers: usize,
        Regions { losses, rows, scratch }: &mut Regions<'_>,
        gradients: &mut [f32],
        task: impl Fn(&Pass<'_>, Share, &mut Workspace<'_>, Leg<'_>) + Sync,
    ) {
        let Shape { sequences, length } = self.shape;
        let per_row = self.plan.per_row();
        let buffers = [Units::new(losses, sequences, length), Units::new(rows, sequences, length * per_row)];
        let (scratch, each) = self.scratch(scratch);
        self.compute.relay(workers, &buffers, (scratch, each), gradients, |share, [losses, rows], scratch, leg| {
            let own = share.of(sequences);
            let pass = Pass {
                compute: Compute { simd: self.compute.simd, parallel: &Serial },
                tokens: part(self.tokens, &own, length),
                shape: Shape { sequences: own.len(), length },
                training: self.training.map(|training| Training { first_sequence: self.sequence(own.start), ..training }),
                ..*self
            };
            let regions = Regions { losses, rows, scratch };
            task(&pass, share, &mut Workspace::cut(regions, self.plan, pass.shape), leg);
        });
    }
}

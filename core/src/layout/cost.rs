//! The multiply-adds of a pass: the products in the family's table, and attention.

use super::{Count, Frozen, Group, Plan, Site};
use crate::config::{Config, Module};

impl Plan {
    /// The multiply-adds of the largest stage of a pass over a full batch, with R = B T rows. The greatest one is:
    ///
    /// R (4 C^2 + 2 C F + 2 T C) for a block forward, R (8 C^2 + 5 T C) and 4 R C F for its branches backward.
    ///
    /// R V C for the head; 2 R V C for its backward if it is not tied, or if it is chunked.
    pub const fn largest_stage(&self) -> usize {
        let [attention, mlp, logits] = self.products();
        let forward = attention.add(mlp).add(self.scores().times(2));
        let backward = attention.times(2).add(self.scores().times(5)).max(mlp.times(2));
        // The gradient of a tied matrix is computed with the embedding's.
        let is_one = self.config.tied && !self.options.chunks_head();
        let head = if is_one { logits } else { logits.times(2) };
        self.pass(forward.max(backward).max(head))
    }

    /// The multiply-adds of a training pass over a full batch: R L (12 C^2 + 6 C F + 7 T C) + 3 R V C, as in
    /// [`Plan::largest_stage`], plus [`Plan::recomputed`].
    ///
    /// Frozen tensors save R for each element of a frozen weight of a product. They also save R (4 C^2 + 5 T C) or 2
    /// R C F for each branch of a block that backward does not reach.
    pub fn multiply_adds(&self) -> usize {
        let [attention, mlp, logits] = self.products();
        let block = attention.add(mlp).times(3).add(self.scores().times(7));
        let (attention, layers) = (attention.add(self.scores().times(5)), self.config.layers);
        let both = attention.add(mlp);
        let not_reached = match self.first_trained() {
            Some(Group::Logits) => both.times(layers),
            Some(Group::Mlp { layer }) => both.times(layer).add(attention),
            Some(Group::Attention { layer }) => both.times(layer),
            Some(Group::Embedding) | None => Count::ZERO,
        };
        // Only these can be frozen.
        let tensors = self.tensors().take(Frozen::MOST);
        let frozen = tensors.filter(|tensor| tensor.frozen && tensor.is_factor(self.config.tied));
        let all = block.times(layers).add(logits.times(3));
        let less = frozen.fold(not_reached, |sum, tensor| sum.add(Count::of(tensor.len())));
        self.pass(Count::of(all.get().saturating_sub(less.get()))).saturating_add(self.recomputed())
    }

    /// The multiply-adds that computing again adds to a pass over a full batch.
    ///
    /// [`crate::Options::recompute`]: R (4 C^2 + C F + 2 T C) for each block of backward except the last.
    /// [`crate::Options::head_rows`]: R V C, if the head's matrix is trained.
    pub fn recomputed(&self) -> usize {
        let [attention, mlp, logits] = self.products();
        let head = logits.only_if(self.options.chunks_head() && self.trains_head());
        if !self.options.recompute {
            return self.pass(head);
        }
        // The MLP's last product is not recomputed.
        let Config { width, hidden, .. } = self.config;
        let last = Count::of(hidden.saturating_add(self.config.lora().rank(Module::MlpOut))).times(width);
        let mlp = Count::of(mlp.get().saturating_sub(last.get()));
        let block = attention.add(mlp).add(self.scores().times(2));
        self.pass(block.times(self.backward_layers().saturating_sub(1)).add(head))
    }

    /// Whether the matrix of the head's product is trained.
    fn trains_head(&self) -> bool {
        let (group, site) = match self.config.tied {
            true => (Group::Embedding, Site::Tokens),
            false => (Group::Logits, Site::Logits),
        };
        let weight = self.pairs(group).find(|pair| pair.site == site).and_then(|pair| pair.weight);
        weight.is_some_and(|weight| !weight.frozen)
    }

    /// The products of a row in forward: a block's attention branch, its MLP branch, and the head.
    const fn products(&self) -> [Count; 3] {
        let config = &self.config;
        let [attention, mlp] = [Group::Attention { layer: 0 }, Group::Mlp { layer: 0 }];
        [attention.products(config), mlp.products(config), Group::Logits.products(config)]
    }

    /// A row's scores, or its sums of values: T H D.
    const fn scores(&self) -> Count {
        Count::of(self.config.context).times(self.config.attended())
    }

    /// This many multiply-adds for each row of a full batch.
    const fn pass(&self, per_row: Count) -> usize {
        per_row.times(self.config.context).times(self.options.batch).get()
    }
}

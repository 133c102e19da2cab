//! What the measurements share. Each binary and benchmark takes its yardsticks in turns with jostle, in one
//! process, so that a busy machine slows all of them alike.
//!
//! | module | what it is |
//! |---|---|
//! | `product` | the shapes of matrix products, and three libraries that compute them |
//! | [`peak`] | the processor's fused multiply-adds a second |
//! | [`bandwidth`] | how fast one thread reads memory |
//! | [`rounds`] | timing in turns, medians |
//! | [`session`] | a model ready to train |
//! | [`operations`] | how many floating-point operations a step takes |
//! | [`turns`] | steps on request, for processes that take turns |

pub mod bandwidth;
pub mod operations;
pub mod peak;
#[cfg(feature = "products")]
pub mod product;
pub mod rounds;
pub mod session;
pub mod turns;

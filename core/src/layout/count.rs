//! Numbers of elements that may exceed the machine's address space.

use crate::error::Error;

/// A sum of products. It saturates instead of overflowing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Count(usize);

impl Count {
    pub const ZERO: Count = Count(0);

    pub const fn of(n: usize) -> Count {
        Count(n)
    }

    /// The number if `condition` is true, otherwise zero.
    pub const fn only_if(self, condition: bool) -> Count {
        if condition { self } else { Count::ZERO }
    }

    pub const fn add(self, other: Count) -> Count {
        Count(self.0.saturating_add(other.0))
    }

    #[inline(never)]
    pub const fn times(self, factor: usize) -> Count {
        Count(self.0.saturating_mul(factor))
    }

    pub const fn max(self, other: Count) -> Count {
        if self.0 > other.0 { self } else { other }
    }

    pub const fn get(self) -> usize {
        self.0
    }

    /// The number, if that many elements of four bytes can exist.
    pub const fn elements(self, what: &'static str) -> Result<usize, Error> {
        if self.0 <= isize::MAX as usize / 4 { Ok(self.0) } else { Err(Error::TooLarge { what }) }
    }
}

//! Small stand-ins for parts of the language and of its libraries, for devices whose flash is short: formatting of
//! numbers, arithmetic of f64, and checks of UTF-8. Each says how much flash it saves.

#[doc(hidden)]
pub mod format;
pub(crate) mod soft_f64;
pub(crate) mod turns;
#[doc(hidden)]
pub mod utf8;

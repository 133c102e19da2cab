//! The JSON that a safetensors header may contain: objects, arrays of whole numbers, strings. Pulled token
//! by token, without recursion or copies. Knows nothing of tensors.

use core::fmt::{self, Write};

use crate::decimal::{self, Written};
use crate::error::{CheckpointError, Error};

/// The text is no such JSON. Where it is not, the cursor tells that was reading.
#[derive(Debug)]
pub(super) struct Malformed;

/// A place in the header.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor<'a> {
    rest: &'a str,
    /// Where in the file the header ends.
    end: usize,
}

impl<'a> Cursor<'a> {
    /// Begins to read `text`, which ends at byte `end` of the file.
    pub fn new(text: &'a str, end: usize) -> Cursor<'a> {
        Cursor { rest: text, end }
    }

    /// The byte of the file at which reading stands.
    pub fn at(&self) -> usize {
        self.end.saturating_sub(self.rest.len())
    }

    /// For what is malformed at this place.
    pub fn error(&self) -> Error {
        CheckpointError::Header { at: self.at() }.into()
    }

    #[inline(never)]
    pub fn eat(&mut self, token: char) -> bool {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
        let after = self.rest.strip_prefix(token);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    #[inline(never)]
    pub fn expect(&mut self, token: char) -> Result<(), Malformed> {
        if self.eat(token) { Ok(()) } else { Err(Malformed) }
    }

    /// Whether a list or object that is closed by `close` has another element; steps to it or past the end.
    #[inline(never)]
    pub fn more(&mut self, first: bool, close: char) -> Result<bool, Malformed> {
        if self.eat(close) {
            return Ok(false);
        }
        if !first {
            self.expect(',')?;
        }
        Ok(true)
    }

    /// Nothing but white space may follow.
    pub fn finish(&mut self) -> Result<(), Malformed> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    #[inline(never)]
    pub fn string(&mut self) -> Result<Text<'a>, Malformed> {
        self.expect('"')?;
        // Most text needs no decoding.
        let plain = self.rest.trim_start_matches(|c| !matches!(c, '"' | '\\' | '\0'..='\x1f'));
        let mut text = Chars(plain);
        while text.next().is_some() {}
        let raw = self.rest.get(..self.rest.len().saturating_sub(text.0.len())).unwrap_or_default();
        self.rest = text.0;
        self.rest = self.rest.strip_prefix('"').ok_or(Malformed)?;
        Ok(Text(raw))
    }

    /// A whole number that this machine can address.
    #[inline(never)]
    pub fn number(&mut self) -> Result<usize, Malformed> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
        let after = self.rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = self.rest.get(..self.rest.len().saturating_sub(after.len())).unwrap_or_default();
        if digits.len() > 1 && digits.starts_with('0') {
            return Err(Malformed);
        }
        let number = decimal::whole(digits.as_bytes()).and_then(|number| usize::try_from(number).ok());
        let number = number.ok_or(Malformed)?;
        self.rest = after;
        Ok(number)
    }
}

/// A JSON string as it stands in the file, known to be well formed. Its `Display` is the text meant.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    /// The characters meant.
    pub fn chars(self) -> Chars<'a> {
        Chars(self.0)
    }

    /// UTF-8 bytes of the text meant.
    pub fn len(self) -> usize {
        self.chars().map(char::len_utf8).sum()
    }

    /// Whether it is `""`.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Whether the text meant is `text`.
    #[inline(never)]
    pub fn is(self, text: &str) -> bool {
        self.chars().eq(text.chars())
    }

    /// Copies the text meant into the first [`Text::len`] bytes of `buffer`, which may be longer.
    ///
    /// # Errors
    /// [`CheckpointError::Buffer`] where it is shorter; nothing has been written then.
    pub fn copy_to(self, buffer: &mut [u8]) -> Result<&str, Error> {
        let error = CheckpointError::Buffer { given: buffer.len(), wanted: self.len() };
        let (target, _) = buffer.split_at_mut_checked(self.len()).ok_or(error)?;
        write!(Sink(&mut *target), "{self}").map_err(|_| error)?;
        Ok(core::str::from_utf8(target).unwrap_or_default())
    }

    /// Bytes of the text as it stands.
    pub(super) fn raw_len(self) -> usize {
        self.0.len()
    }

    /// The text where no character of it is escaped.
    #[inline(never)]
    pub(super) fn plain(self) -> Option<&'a str> {
        if self.0.bytes().any(|byte| byte == b'\\') { None } else { Some(self.0) }
    }
}

/// Formats into a slice that was measured before.
struct Sink<'a>(&'a mut [u8]);

impl Write for Sink<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let target = self.0.split_off_mut(..text.len()).ok_or(fmt::Error)?;
        target.iter_mut().zip(text.bytes()).for_each(|(place, byte)| *place = byte);
        Ok(())
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.chars().try_for_each(|c| f.write_char(c))
    }
}

/// The characters that a JSON string means. Ends at the closing quote, or where the string is malformed.
#[derive(Clone, Debug)]
pub struct Chars<'a>(&'a str);

impl<'a> Chars<'a> {
    /// What follows `prefix`, if the text begins with it.
    pub(super) fn after(mut self, prefix: &str) -> Option<Chars<'a>> {
        prefix.chars().all(|c| self.next() == Some(c)).then_some(self)
    }

    /// Whether the remaining characters are what `text` displays.
    pub(super) fn is(self, text: &dyn Written) -> bool {
        let mut same = Same(self);
        text.write(&mut same).is_some() && same.0.next().is_none()
    }
}

impl Iterator for Chars<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let mut chars = self.0.chars();
        let c = match chars.next()? {
            '"' | '\0'..='\x1f' => return None,
            '\\' => match chars.next()? {
                c @ ('"' | '\\' | '/') => c,
                'b' => '\x08',
                'f' => '\x0c',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    let (unit, after) = utf16_unit(chars.as_str())?;
                    chars = after.chars();
                    if (0xD800..0xDC00).contains(&unit) {
                        let (low, after) = utf16_unit(after.strip_prefix("\\u")?)?;
                        chars = after.chars();
                        let low = low.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
                        char::from_u32(0x1_0000 + ((unit - 0xD800) << 10) + low)?
                    } else {
                        char::from_u32(unit)?
                    }
                }
                _ => return None,
            },
            c => c,
        };
        self.0 = chars.as_str();
        Some(c)
    }
}

/// Four hexadecimal digits, and what follows them.
fn utf16_unit(text: &str) -> Option<(u32, &str)> {
    let (digits, after) = text.split_at_checked(4)?;
    Some((super::hexadecimal(digits)?, after))
}

/// A sink that refuses whatever differs from the characters expected.
struct Same<'a>(Chars<'a>);

impl decimal::Sink for Same<'_> {
    fn put(&mut self, text: &[u8]) -> Option<()> {
        text.iter().all(|byte| self.0.next() == Some(char::from(*byte))).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::Cursor;
    use std::string::ToString;

    fn string(json: &str) -> Option<std::string::String> {
        let mut cursor = Cursor::new(json, json.len());
        let text = cursor.string().ok()?;
        cursor.finish().ok()?;
        Some(text.to_string())
    }

    #[test]
    fn escapes() {
        assert_eq!(string(r#" "" "#).as_deref(), Some(""));
        assert_eq!(string(r#""\"\\\/\b\f\n\r\t""#).as_deref(), Some("\"\\/\x08\x0c\n\r\t"));
        assert_eq!(string(r#""\u00e9\u20AC\ud83d\ude00é😀""#).as_deref(), Some("é€😀é😀"));
    }

    #[test]
    fn malformed_strings() {
        for json in [
            "",
            "x",
            "\"",
            "\"a",
            "\"a\n\"",
            "\"\t\"",
            r#""\"#,
            r#""\""#,
            r#""\x""#,
            r#""\u12""#,
            r#""\u+123""#,
            r#""\u00é""#,
            r#""\ud83d""#,
            r#""\ud83d\n""#,
            r#""\ud83d\u0041""#,
            r#""\ude00""#,
            r#""a"b"#,
        ] {
            assert_eq!(string(json), None, "{json}");
        }
    }

    #[test]
    fn numbers() {
        let number = |json| Cursor::new(json, 0).number().ok();
        assert_eq!(number(" 0,"), Some(0));
        assert_eq!(number("1048576]"), Some(1_048_576));
        for json in ["", "-1", "+1", "01", "x", "99999999999999999999999"] {
            assert_eq!(number(json), None, "{json}");
        }
    }

    #[test]
    fn copies_into_exactly_enough() {
        let text = Cursor::new(r#""a\u00e9""#, 0).string().unwrap();
        assert_eq!(text.len(), 3);
        assert_eq!(text.copy_to(&mut [0; 3]), Ok("aé"));
        let mut short = [7; 2];
        assert!(text.copy_to(&mut short).is_err());
        assert_eq!(short, [7; 2]);
    }
}

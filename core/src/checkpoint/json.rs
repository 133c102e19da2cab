//! The JSON that a safetensors header may contain: objects, arrays of whole numbers, strings. Pulled token
//! by token, without recursion or copies. Knows nothing of tensors.

use core::fmt::{self, Write};

use crate::compact::format::{self, Written};
use crate::compact::utf8;
use crate::error::{CheckpointError, Error};

/// The text is not such JSON. The cursor that was reading it knows the place.
#[derive(Debug)]
pub(super) struct Malformed;

/// A place in the header.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    /// The byte of the file at which the header ends.
    end: usize,
}

impl<'a> Cursor<'a> {
    /// Starts to read `text`, which ends at byte `end` of the file.
    pub fn new(text: &'a [u8], end: usize) -> Cursor<'a> {
        Cursor { rest: text, end }
    }

    /// The byte of the file at the current place.
    pub fn at(&self) -> usize {
        self.end.saturating_sub(self.rest.len())
    }

    /// The error for malformed text at this place.
    pub fn error(&self) -> Error {
        CheckpointError::Header { at: self.at() }.into()
    }

    /// Skips white space.
    #[inline(never)]
    fn trim(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    #[inline(never)]
    pub fn eat(&mut self, token: u8) -> bool {
        self.trim();
        let after = self.rest.strip_prefix(&[token]);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    #[inline(never)]
    pub fn expect(&mut self, token: u8) -> Result<(), Malformed> {
        if self.eat(token) { Ok(()) } else { Err(Malformed) }
    }

    /// Whether a list or object that `close` ends has another element. Moves to it, or past the end.
    #[inline(never)]
    pub fn more(&mut self, first: bool, close: u8) -> Result<bool, Malformed> {
        if self.eat(close) {
            return Ok(false);
        }
        if !first {
            self.expect(b',')?;
        }
        Ok(true)
    }

    /// Refuses anything but white space from here on.
    pub fn finish(&mut self) -> Result<(), Malformed> {
        self.trim();
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    #[inline(never)]
    pub fn string(&mut self) -> Result<Text<'a>, Malformed> {
        self.expect(b'"')?;
        let mut text = Chars(self.rest);
        loop {
            let plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
            let count = text.0.iter().take_while(|byte| plain(byte)).count();
            text.0 = text.0.get(count..).unwrap_or_default();
            if text.next().is_none() {
                break;
            }
        }
        let raw = self.rest.get(..self.rest.len().saturating_sub(text.0.len())).unwrap_or_default();
        self.rest = text.0;
        self.rest = self.rest.strip_prefix(b"\"").ok_or(Malformed)?;
        Ok(Text(raw))
    }

    /// The name of an object's member. Moves to its value.
    #[inline(never)]
    pub fn name(&mut self) -> Result<Text<'a>, Malformed> {
        let name = self.string()?;
        self.expect(b':')?;
        Ok(name)
    }

    /// A whole number that this machine can address.
    fn number(&mut self) -> Result<usize, Malformed> {
        self.trim();
        let count = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, after) = self.rest.split_at_checked(count).ok_or(Malformed)?;
        if digits.len() > 1 && digits.starts_with(b"0") {
            return Err(Malformed);
        }
        let number = format::whole(digits).and_then(|number| usize::try_from(number).ok());
        let number = number.ok_or(Malformed)?;
        self.rest = after;
        Ok(number)
    }

    /// A list of such numbers: how many there are, and the first two; missing ones are 1.
    #[inline(never)]
    pub fn numbers(&mut self) -> Result<(usize, [usize; 2]), Malformed> {
        let (mut count, mut numbers) = (0, [1; 2]);
        self.expect(b'[')?;
        while self.more(count == 0, b']')? {
            let number = self.number()?;
            if let Some(place) = numbers.get_mut(count) {
                *place = number;
            }
            count += 1;
        }
        Ok((count, numbers))
    }
}

/// A JSON string as written in the file, known to be well formed. Its `Display` is the decoded text.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    /// The decoded characters.
    pub fn chars(self) -> Chars<'a> {
        Chars(self.0)
    }

    /// The number of UTF-8 bytes of the decoded text.
    pub fn len(self) -> usize {
        self.chars().map(char::len_utf8).sum()
    }

    /// Whether it is `""`.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Whether the decoded text is `text`.
    #[inline(never)]
    pub fn is(self, text: &str) -> bool {
        self.chars().is(&text)
    }

    /// Copies the decoded text into the first [`Text::len`] bytes of `buffer`, which may be longer.
    ///
    /// # Errors
    /// [`CheckpointError::Buffer`] if it is shorter; nothing has been written then.
    pub fn copy_to(self, buffer: &mut [u8]) -> Result<&str, Error> {
        let error = CheckpointError::Buffer { given: buffer.len(), wanted: self.len() };
        let (target, _) = buffer.split_at_mut_checked(self.len()).ok_or(error)?;
        write!(Sink(&mut *target), "{self}").map_err(|_| error)?;
        Ok(core::str::from_utf8(target).unwrap_or_default())
    }

    /// The bytes of the text as written.
    pub(super) fn raw_len(self) -> usize {
        self.0.len()
    }

    /// The text, if none of its characters is escaped.
    #[inline(never)]
    pub(super) fn plain(self) -> Option<&'a [u8]> {
        let is_escape = |byte: &u8| matches!(byte, b'\\');
        (!self.0.iter().any(is_escape)).then_some(self.0)
    }
}

/// Formats into a slice of the right length.
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

/// The decoded characters of a JSON string. Ends at the closing quote, or at malformed text.
#[derive(Clone, Debug)]
pub struct Chars<'a>(&'a [u8]);

impl<'a> Chars<'a> {
    /// The rest after `prefix`, if the text begins with it.
    pub(super) fn after(self, prefix: &str) -> Option<Chars<'a>> {
        let mut same = Same(Some(self));
        format::Sink::put(&mut same, prefix.as_bytes());
        same.0
    }

    /// Whether the remaining characters are the given ones.
    #[inline(never)]
    pub(super) fn is(self, text: &dyn Written) -> bool {
        let mut same = Same(Some(self));
        text.write(&mut same);
        same.0.is_some_and(|mut rest| rest.next().is_none())
    }
}

impl Iterator for Chars<'_> {
    type Item = char;

    #[inline(never)]
    fn next(&mut self) -> Option<char> {
        let mut rest = self.0;
        let c = match *rest.split_off_first()? {
            b'"' | 0..=0x1f => return None,
            b'\\' => escaped(&mut rest)?,
            first => utf8::character(first, &mut rest)?,
        };
        self.0 = rest;
        Some(c)
    }
}

/// The character of an escape sequence.
fn escaped(rest: &mut &[u8]) -> Option<char> {
    match *rest.split_off_first()? {
        c @ (b'"' | b'\\' | b'/') => Some(char::from(c)),
        b'b' => Some('\x08'),
        b'f' => Some('\x0c'),
        b'n' => Some('\n'),
        b'r' => Some('\r'),
        b't' => Some('\t'),
        b'u' => {
            let mut code = utf16_unit(rest)?;
            if (0xD800..0xDC00).contains(&code) {
                *rest = rest.strip_prefix(b"\\u")?;
                let low = utf16_unit(rest)?.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
                code = 0x1_0000 + ((code - 0xD800) << 10) + low;
            }
            char::from_u32(code)
        }
        _ => None,
    }
}

/// Four hexadecimal digits.
fn utf16_unit(rest: &mut &[u8]) -> Option<u32> {
    super::hexadecimal(rest.split_off(..4)?)
}

/// The rest of some characters, if they begin with the given ones.
struct Same<'a>(Option<Chars<'a>>);

impl format::Sink for Same<'_> {
    #[inline(never)]
    fn put(&mut self, mut text: &[u8]) {
        while let (Some(chars), Some(first)) = (&mut self.0, text.split_off_first()) {
            if chars.next() != utf8::character(*first, &mut text) {
                self.0 = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Cursor;
    use std::string::ToString;

    fn string(json: &str) -> Option<std::string::String> {
        let mut cursor = Cursor::new(json.as_bytes(), json.len());
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
        let number = |json: &str| Cursor::new(json.as_bytes(), 0).number().ok();
        assert_eq!(number(" 0,"), Some(0));
        assert_eq!(number("1048576]"), Some(1_048_576));
        for json in ["", "-1", "+1", "01", "x", "99999999999999999999999"] {
            assert_eq!(number(json), None, "{json}");
        }
    }

    #[test]
    fn copies_into_exactly_enough() {
        let text = Cursor::new(br#""a\u00e9""#, 0).string().unwrap();
        assert_eq!(text.len(), 3);
        assert_eq!(text.copy_to(&mut [0; 3]), Ok("aé"));
        let mut short = [7; 2];
        assert!(text.copy_to(&mut short).is_err());
        assert_eq!(short, [7; 2]);
    }
}

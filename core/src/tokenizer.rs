//! Converts text to tokens and back without a heap: bytes as they are, or a table of characters. Knows nothing of
//! models.

use crate::error::{Error, at_least};

/// A token for each of the 256 values of a byte. It can encode every text.
///
/// ```
/// use jostle::ByteTokenizer;
/// let mut tokens = [0; 8];
/// assert_eq!(ByteTokenizer.encode("é!".as_bytes(), &mut tokens), Ok(3));
/// assert_eq!(tokens[..3], [0xc3, 0xa9, 0x21]);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteTokenizer;

impl ByteTokenizer {
    /// V: 256.
    pub const fn vocab(&self) -> usize {
        256
    }

    /// Writes a token for each byte to the front of `tokens`. Returns their number.
    ///
    /// [`Error::Buffer`] if `tokens` is shorter than `text`.
    pub fn encode(&self, text: &[u8], tokens: &mut [i32]) -> Result<usize, Error> {
        at_least("tokens", tokens.len(), text.len())?;
        for (token, byte) in tokens.iter_mut().zip(text) {
            *token = i32::from(*byte);
        }
        Ok(text.len())
    }

    /// Writes the byte of each token to the front of `bytes`. Returns their number. A model's text need not be UTF-8,
    /// and a piece of it may end within a character.
    ///
    /// [`Error::Buffer`] if `bytes` is shorter than `tokens`; [`Error::Token`] for a token outside `0..256`. Nothing
    /// is written then.
    pub fn decode(&self, tokens: &[i32], bytes: &mut [u8]) -> Result<usize, Error> {
        at_least("bytes", bytes.len(), tokens.len())?;
        if let Some(index) = tokens.iter().position(|token| u8::try_from(*token).is_err()) {
            let token = tokens.get(index).copied().map_or(-1, i64::from);
            return Err(Error::Token { index, token, vocab: self.vocab() });
        }
        for (byte, token) in bytes.iter_mut().zip(tokens) {
            *byte = *token as u8;
        }
        Ok(tokens.len())
    }
}

/// A token for each character of a sorted table: the token is the character's place in it, as in nanoGPT's
/// `shakespeare_char`. The table is the caller's.
///
/// ```
/// use jostle::CharTable;
/// let mut buffer = ['\0'; 128];
/// let table = CharTable::collect("hello", &mut buffer)?;
/// assert_eq!(table.chars(), ['e', 'h', 'l', 'o']);
/// assert_eq!(table.encode_char('l'), Some(2));
/// # Ok::<(), jostle::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CharTable<'a> {
    chars: &'a [char],
}

impl<'a> CharTable<'a> {
    /// A table of characters in strictly ascending order of their code points, otherwise [`Error::Unsorted`].
    pub fn new(chars: &'a [char]) -> Result<CharTable<'a>, Error> {
        match chars.iter().zip(chars.iter().skip(1)).position(|(a, b)| a >= b) {
            None => Ok(CharTable { chars }),
            Some(before) => Err(Error::Unsorted { what: "table", index: before.saturating_add(1) }),
        }
    }

    /// Gathers the distinct characters of `text` at the front of `buffer`, sorted by code point (Python's
    /// `sorted(set(text))`).
    ///
    /// [`Error::Buffer`] if there are more than fit; the contents of `buffer` are then unspecified. The error names
    /// the first length that might be enough: the full number is not known without storing the characters.
    pub fn collect(text: &str, buffer: &'a mut [char]) -> Result<CharTable<'a>, Error> {
        let mut length = 0_usize;
        for char in text.chars() {
            let Err(place) = buffer.get(..length).unwrap_or_default().binary_search(&char) else {
                continue;
            };
            let longer = length.saturating_add(1);
            at_least("table", buffer.len(), longer)?;
            if let Some(free) = buffer.get_mut(length) {
                *free = char;
            }
            if let Some(moved @ [_, ..]) = buffer.get_mut(place..longer) {
                moved.rotate_right(1);
            }
            length = longer;
        }
        Ok(CharTable { chars: buffer.get(..length).unwrap_or_default() })
    }

    /// V: the number of characters; 0 if collected from an empty text.
    pub const fn vocab(&self) -> usize {
        self.chars.len()
    }

    /// The characters, in the order of their tokens.
    pub const fn chars(&self) -> &'a [char] {
        self.chars
    }

    /// Writes a token for each character of `text` to the front of `tokens`. Returns their number.
    ///
    /// [`Error::Character`] for the first character outside the table, [`Error::Buffer`] if `tokens` is shorter than
    /// the text in characters. Nothing is written then.
    pub fn encode(&self, text: &str, tokens: &mut [i32]) -> Result<usize, Error> {
        let mut count = 0_usize;
        for (index, char) in text.char_indices() {
            if self.encode_char(char).is_none() {
                return Err(Error::Character { index });
            }
            count = count.saturating_add(1);
        }
        at_least("tokens", tokens.len(), count)?;
        for (slot, token) in tokens.iter_mut().zip(text.chars().filter_map(|char| self.encode_char(char))) {
            *slot = token;
        }
        Ok(count)
    }

    /// The token of a character, if the table has it.
    pub fn encode_char(&self, char: char) -> Option<i32> {
        self.chars.binary_search(&char).ok().and_then(|place| i32::try_from(place).ok())
    }

    /// The character of a token; `None` outside `0..vocab`.
    pub fn decode(&self, token: i32) -> Option<char> {
        usize::try_from(token).ok().and_then(|place| self.chars.get(place).copied())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::string::String;
    use std::vec;
    use std::vec::Vec;

    use super::*;

    const TEXT: &str = "Größe: 5 µm, 日本語 🦀!\n";

    #[test]
    fn every_byte_survives() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut tokens = [0; 256];
        assert_eq!(ByteTokenizer.encode(&bytes, &mut tokens), Ok(256));
        assert!(tokens.iter().zip(0..256).all(|(token, byte)| *token == byte));
        let mut decoded = [0; 256];
        assert_eq!(ByteTokenizer.decode(&tokens, &mut decoded), Ok(256));
        assert_eq!(decoded, bytes[..]);
    }

    #[test]
    fn bytes_of_multi_byte_text_survive_in_longer_buffers() {
        let mut tokens = vec![-7; TEXT.len() + 2];
        assert_eq!(ByteTokenizer.encode(TEXT.as_bytes(), &mut tokens), Ok(TEXT.len()));
        assert_eq!(tokens[TEXT.len()..], [-7, -7]);
        let mut bytes = vec![7; TEXT.len() + 2];
        assert_eq!(ByteTokenizer.decode(&tokens[..TEXT.len()], &mut bytes), Ok(TEXT.len()));
        assert_eq!(bytes[TEXT.len()..], [7, 7]);
        assert_eq!(std::str::from_utf8(&bytes[..TEXT.len()]), Ok(TEXT));
    }

    #[test]
    fn bytes_refuse_short_buffers_and_foreign_tokens_and_write_nothing() {
        let mut tokens = [-7; 2];
        let error = Error::Buffer { what: "tokens", given: 2, wanted: 3 };
        assert_eq!(ByteTokenizer.encode(b"abc", &mut tokens), Err(error));
        assert_eq!(tokens, [-7; 2]);
        let mut bytes = [7; 2];
        let error = Error::Buffer { what: "bytes", given: 2, wanted: 3 };
        assert_eq!(ByteTokenizer.decode(&[1, 2, 3], &mut bytes), Err(error));
        for token in [-1, 256, i32::MIN, i32::MAX] {
            let error = Error::Token { index: 1, token: token.into(), vocab: 256 };
            assert_eq!(ByteTokenizer.decode(&[1, token], &mut bytes), Err(error));
        }
        assert_eq!(bytes, [7; 2]);
    }

    #[test]
    fn characters_are_collected_sorted_and_once() {
        let expected: Vec<char> = TEXT.chars().collect::<BTreeSet<_>>().into_iter().collect();
        let mut exact = vec!['?'; expected.len()];
        assert_eq!(CharTable::collect(TEXT, &mut exact).unwrap().chars(), expected);
        let mut longer = vec!['?'; expected.len() + 9];
        assert_eq!(CharTable::collect(TEXT, &mut longer).unwrap().chars(), expected);
        let mut short = vec!['?'; expected.len() - 1];
        let error = Error::Buffer { what: "table", given: short.len(), wanted: expected.len() };
        assert_eq!(CharTable::collect(TEXT, &mut short), Err(error));
    }

    #[test]
    fn characters_survive() {
        let mut buffer = ['\0'; 64];
        let table = CharTable::collect(TEXT, &mut buffer).unwrap();
        let count = TEXT.chars().count();
        let mut tokens = vec![-7; count + 1];
        assert_eq!(table.encode(TEXT, &mut tokens), Ok(count));
        assert_eq!(tokens.pop(), Some(-7));
        assert!(tokens.iter().all(|token| usize::try_from(*token).unwrap() < table.vocab()));
        let decoded: Option<String> = tokens.iter().map(|token| table.decode(*token)).collect();
        assert_eq!(decoded.as_deref(), Some(TEXT));
        for (place, char) in table.chars().iter().enumerate() {
            assert_eq!(table.encode_char(*char).map(|token| token as usize), Some(place));
        }
        assert_eq!(table.encode_char('x'), None);
        let beyond = table.vocab() as i32;
        assert_eq!([-1, beyond, i32::MIN, i32::MAX].map(|token| table.decode(token)), [None; 4]);
    }

    #[test]
    fn an_unknown_character_is_named_by_its_byte() {
        let table = CharTable::new(&['a', 'é']).unwrap();
        let mut tokens = [-7; 4];
        assert_eq!(table.encode("éa?a", &mut tokens), Err(Error::Character { index: 3 }));
        let error = Error::Buffer { what: "tokens", given: 4, wanted: 5 };
        assert_eq!(table.encode("aéaéa", &mut tokens), Err(error));
        assert_eq!(tokens, [-7; 4]);
        assert_eq!(table.encode("éaéa", &mut tokens), Ok(4));
        assert_eq!(tokens, [1, 0, 1, 0]);
    }

    #[test]
    fn an_empty_text_needs_no_room() {
        assert_eq!(ByteTokenizer.encode(b"", &mut []), Ok(0));
        assert_eq!(ByteTokenizer.decode(&[], &mut []), Ok(0));
        let table = CharTable::collect("", &mut []).unwrap();
        assert_eq!(table.vocab(), 0);
        assert_eq!(table.encode("", &mut []), Ok(0));
        assert_eq!(table.encode("a", &mut []), Err(Error::Character { index: 0 }));
        assert_eq!(table.decode(0), None);
    }

    #[test]
    fn a_given_table_must_ascend() {
        assert_eq!(CharTable::new(&['a', 'b', 'z', 'é']).map(|table| table.vocab()), Ok(4));
        for chars in [['a', 'c', 'b'], ['a', 'c', 'c']] {
            assert_eq!(CharTable::new(&chars), Err(Error::Unsorted { what: "table", index: 2 }));
        }
    }
}

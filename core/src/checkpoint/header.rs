//! The header of a safetensors file: one object of tensors, with an optional `__metadata__` object of strings.
//! Knows nothing of models.

use super::json::{Chars, Cursor, Malformed, Text};
use crate::error::{CheckpointError, Error};

/// A tensor's place and type in the file's data.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    name: Text<'a>,
    /// The byte of the file at which its description begins.
    pub at: usize,
    pub is_f32: bool,
    pub rank: usize,
    /// The first two sizes; missing ones are 1.
    pub shape: [usize; 2],
    /// Its first byte in the data; at most `end`.
    pub begin: usize,
    pub end: usize,
}

impl<'a> Entry<'a> {
    /// The name as it is in the file.
    pub fn raw_name(&self) -> Text<'a> {
        self.name
    }

    /// The name without the prefix `transformer.`, which Hugging Face's GPT-2 with a head gives to all tensors but
    /// the head.
    pub fn name(&self) -> Chars<'a> {
        let name = self.name.chars();
        name.clone().after("transformer.").unwrap_or(name)
    }

    /// Reads the object after a tensor's name. Each of its three members must occur exactly once.
    fn read(name: Text<'a>, at: usize, cursor: &mut Cursor<'a>) -> Result<Entry<'a>, Malformed> {
        let (mut is_f32, mut shape, mut range) = (None, None, None);
        cursor.expect(b'{')?;
        while cursor.more(is_f32.is_none() && shape.is_none() && range.is_none(), b'}')? {
            let member = cursor.name()?;
            let is_new = if member.is("dtype") {
                is_f32.replace(cursor.string()?.is("F32")).is_none()
            } else if member.is("shape") {
                shape.replace(cursor.numbers()?).is_none()
            } else {
                member.is("data_offsets") && range.replace(cursor.numbers()?).is_none()
            };
            if !is_new {
                return Err(Malformed);
            }
        }
        match (is_f32, shape, range) {
            (Some(is_f32), Some((rank, shape)), Some((2, [begin, end]))) if begin <= end => {
                Ok(Entry { name, at, is_f32, rank, shape, begin, end })
            }
            _ => Err(Malformed),
        }
    }
}

/// The tensors of a header, in the order of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Items<'a> {
    cursor: Cursor<'a>,
    first: bool,
    /// The last metadata object so far, and the number of them.
    pub metadata: Pairs<'a>,
    pub metadata_objects: usize,
}

impl<'a> Items<'a> {
    /// Starts to read a header that ends at byte `end` of the file.
    pub fn new(text: &'a [u8], end: usize) -> Result<Items<'a>, Error> {
        let mut cursor = Cursor::new(text, end);
        if text.starts_with(b"{") && cursor.eat(b'{') {
            Ok(Items { cursor, first: true, metadata: Pairs::default(), metadata_objects: 0 })
        } else {
            Err(cursor.error())
        }
    }

    /// The error for malformed text at the current place.
    pub fn error(&self) -> Error {
        self.cursor.error()
    }

    /// The next tensor; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Entry<'a>>, Malformed> {
        while self.cursor.more(self.first, b'}')? {
            self.first = false;
            let at = self.cursor.at();
            let name = self.cursor.name()?;
            if !name.is("__metadata__") {
                return Entry::read(name, at, &mut self.cursor).map(Some);
            }
            self.cursor.expect(b'{')?;
            self.metadata = Pairs { cursor: self.cursor, first: true };
            self.metadata_objects += 1;
            let mut all = self.metadata;
            let read = all.skip_all();
            self.cursor = all.cursor;
            read?;
        }
        self.cursor.finish().map(|()| None)
    }

    /// The next tensor of a header that was read completely before, so that no error can occur.
    pub fn tensor(&mut self) -> Option<Entry<'a>> {
        self.next().ok().flatten()
    }

    /// Refuses a header in which two tensors have one name.
    pub fn no_duplicates(mut self) -> Result<(), Error> {
        while let Some(entry) = self.tensor() {
            let mut others = self;
            while let Some(other) = others.tensor() {
                if entry.name().eq(other.name()) {
                    return Err(CheckpointError::Duplicate { at: other.at }.into());
                }
            }
        }
        Ok(())
    }

    /// The number of bytes from the data's beginning that the tensors cover without a gap, each byte once. It takes
    /// one pass if tensors are listed in the order of their data, as all known writers do, and otherwise more.
    pub fn covered(self) -> usize {
        let mut covered = 0;
        loop {
            let before = covered;
            let mut items = self;
            while let Some(entry) = items.tensor() {
                if entry.begin == covered {
                    covered = entry.end;
                }
            }
            if covered == before {
                return covered;
            }
        }
    }
}

/// One metadata entry.
#[derive(Clone, Copy)]
pub(super) struct Pair<'a> {
    pub key: Text<'a>,
    pub value: Text<'a>,
    /// The byte of the file at which the value's text begins.
    pub at: usize,
}

/// The metadata of a file: keys and values, in its order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pairs<'a> {
    cursor: Cursor<'a>,
    first: bool,
}

impl<'a> Pairs<'a> {
    /// The byte of the file at which they begin.
    pub(super) fn at(&self) -> usize {
        self.cursor.at()
    }

    fn skip_all(&mut self) -> Result<(), Malformed> {
        while self.step()?.is_some() {}
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Pair<'a>>, Malformed> {
        if !self.cursor.more(self.first, b'}')? {
            return Ok(None);
        }
        self.first = false;
        let key = self.cursor.name()?;
        let value = self.cursor.string()?;
        // Before the closing quote.
        let at = self.cursor.at().saturating_sub(value.raw_len() + 1);
        Ok(Some(Pair { key, value, at }))
    }

    /// The next entry of a header that was read completely before, so that no error can occur.
    pub(super) fn pair(&mut self) -> Option<Pair<'a>> {
        self.step().ok()?
    }

    /// Refuses metadata in which a key occurs twice.
    pub(super) fn no_duplicates(mut self) -> Result<(), Error> {
        while let Some(pair) = self.pair() {
            let mut others = self;
            while let Some(other) = others.pair() {
                if pair.key.chars().eq(other.key.chars()) {
                    return Err(CheckpointError::Duplicate { at: other.at }.into());
                }
            }
        }
        Ok(())
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (Text<'a>, Text<'a>);

    fn next(&mut self) -> Option<(Text<'a>, Text<'a>)> {
        let pair = self.pair();
        if pair.is_none() {
            self.cursor = Cursor::default();
        }
        pair.map(|pair| (pair.key, pair.value))
    }
}

//! The header of a safetensors file: one object of tensors, with an optional `__metadata__` object of strings.
//! Knows nothing of models.

use super::json::{Chars, Cursor, Malformed, Text};
use crate::error::{CheckpointError, Error};

/// Where one tensor lies in the file's data, and how.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    name: Text<'a>,
    /// The byte of the file where it is described.
    pub at: usize,
    pub is_f32: bool,
    pub rank: usize,
    /// The first two sizes; 1 where there are fewer.
    pub shape: [usize; 2],
    /// In bytes of the data; no more than `end`.
    pub begin: usize,
    pub end: usize,
}

impl<'a> Entry<'a> {
    /// The name, less the prefix that a GPT-2 with a head gives to all that is not the head.
    pub fn name(&self) -> Chars<'a> {
        let name = self.name.chars();
        name.clone().after("transformer.").unwrap_or(name)
    }

    /// Reads the object that follows a tensor's name. Each of its three members is wanted exactly once.
    fn read(name: Text<'a>, at: usize, cursor: &mut Cursor<'a>) -> Result<Entry<'a>, Malformed> {
        let (mut dtype, mut shape, mut range) = (None, None, None);
        cursor.expect('{')?;
        while cursor.more(dtype.is_none() && shape.is_none() && range.is_none(), '}')? {
            let member = cursor.string()?;
            cursor.expect(':')?;
            if member.is("dtype") && dtype.is_none() {
                dtype = Some(cursor.string()?.is("F32"));
            } else if member.is("shape") && shape.is_none() {
                let (mut rank, mut sizes) = (0, [1; 2]);
                cursor.expect('[')?;
                while cursor.more(rank == 0, ']')? {
                    let size = cursor.number()?;
                    if let Some(place) = sizes.get_mut(rank) {
                        *place = size;
                    }
                    rank += 1;
                }
                shape = Some((rank, sizes));
            } else if member.is("data_offsets") && range.is_none() {
                cursor.expect('[')?;
                let begin = cursor.number()?;
                cursor.expect(',')?;
                range = Some((begin, cursor.number()?));
                cursor.expect(']')?;
            } else {
                return Err(Malformed);
            }
        }
        match (dtype, shape, range) {
            (Some(is_f32), Some((rank, shape)), Some((begin, end))) if begin <= end => {
                Ok(Entry { name, at, is_f32, rank, shape, begin, end })
            }
            _ => Err(Malformed),
        }
    }
}

/// One member of the header.
pub(super) enum Item<'a> {
    Metadata(Pairs<'a>),
    Tensor(Entry<'a>),
}

/// The members of a header, in the order of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Items<'a> {
    cursor: Cursor<'a>,
    first: bool,
}

impl<'a> Items<'a> {
    /// Begins to read a header that ends at byte `end` of the file.
    pub fn new(text: &'a str, end: usize) -> Result<Items<'a>, Error> {
        let mut cursor = Cursor::new(text, end);
        if text.starts_with('{') && cursor.eat('{') {
            Ok(Items { cursor, first: true })
        } else {
            Err(cursor.error())
        }
    }

    /// For what is malformed where reading stands.
    pub fn error(&self) -> Error {
        self.cursor.error()
    }

    /// The next member; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Item<'a>>, Malformed> {
        if !self.cursor.more(self.first, '}')? {
            return self.cursor.finish().map(|()| None);
        }
        self.first = false;
        let at = self.cursor.at();
        let name = self.cursor.string()?;
        self.cursor.expect(':')?;
        if !name.is("__metadata__") {
            return Entry::read(name, at, &mut self.cursor).map(|entry| Some(Item::Tensor(entry)));
        }
        self.cursor.expect('{')?;
        let pairs = Pairs { cursor: self.cursor, first: true };
        let mut all = pairs;
        let read = all.skip_all();
        self.cursor = all.cursor;
        read.map(|()| Some(Item::Metadata(pairs)))
    }

    /// The next tensor of a header that has been read to its end before, so that there is no error on the way.
    pub fn tensor(&mut self) -> Option<Entry<'a>> {
        loop {
            match self.next().ok()?? {
                Item::Tensor(entry) => return Some(entry),
                Item::Metadata(_) => {}
            }
        }
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

    /// The bytes from the data's beginning that the tensors cover without gap, each byte once. One pass where
    /// they are listed in the order in which they lie, as all known writers do; else more.
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
    /// The byte of the file where they begin.
    pub(super) fn at(&self) -> usize {
        self.cursor.at()
    }

    fn skip_all(&mut self) -> Result<(), Malformed> {
        while self.step()?.is_some() {}
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Pair<'a>>, Malformed> {
        if !self.cursor.more(self.first, '}')? {
            return Ok(None);
        }
        self.first = false;
        let key = self.cursor.string()?;
        self.cursor.expect(':')?;
        let value = self.cursor.string()?;
        // Before the closing quote.
        let at = self.cursor.at().saturating_sub(value.raw_len() + 1);
        Ok(Some(Pair { key, value, at }))
    }

    /// The next of a header that has been read to its end before, so that there is no error on the way.
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
            self.cursor = Cursor::new("", 0);
        }
        pair.map(|pair| (pair.key, pair.value))
    }
}

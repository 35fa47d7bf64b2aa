//! Values made from bytes, so that whatever finds bytes finds values.

/// Takes bytes apart; zeros when they are used up.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    pub(crate) fn number(&mut self) -> u64 {
        // Small ones as often as large ones.
        let width = self.byte() % 9;
        (0..width).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    /// Some bytes, as many as a byte says or fewer.
    pub(crate) fn some(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte() % 40).min(self.0.len());
        let (some, rest) = self.0.split_at(len);
        self.0 = rest;
        some
    }

    /// The same as text.
    pub(crate) fn text(&mut self) -> String {
        String::from_utf8_lossy(self.some()).into_owned()
    }

    /// The same, or nothing.
    pub(crate) fn maybe(&mut self) -> Option<&'a [u8]> {
        (!self.byte().is_multiple_of(3)).then(|| self.some())
    }
}

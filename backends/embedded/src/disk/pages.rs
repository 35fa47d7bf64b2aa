//! The bytes of a file in memory: pages that exist only where something was written.

const PAGE: usize = 16 * 1024;
const PAGE_U64: u64 = PAGE as u64;

/// The bytes of a file. Holes read as zeros and take no memory.
#[derive(Clone, Default)]
pub(super) struct Pages {
    len: u64,
    pages: Vec<Option<Box<[u8]>>>,
}

/// Which page a position lies in, and where in it.
fn place(at: u64) -> Option<(usize, usize)> {
    let page = usize::try_from(at / PAGE_U64).ok()?;
    let within = usize::try_from(at % PAGE_U64).ok()?;
    Some((page, within))
}

impl Pages {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Reads what lies below the length; fewer bytes than asked for only there.
    pub(super) fn read_at(&self, buf: &mut [u8], at: u64) -> usize {
        let rest = self.len.saturating_sub(at);
        let want = usize::try_from(rest).unwrap_or(usize::MAX).min(buf.len());
        let mut done = 0;
        while done < want {
            let Some((page, within)) = place(at + done as u64) else {
                break;
            };
            let take = (PAGE - within).min(want - done);
            let Some(out) = buf.get_mut(done..done + take) else {
                break;
            };
            match self.pages.get(page).and_then(Option::as_ref) {
                Some(bytes) => match bytes.get(within..within + take) {
                    Some(bytes) => out.copy_from_slice(bytes),
                    None => break,
                },
                None => out.fill(0),
            }
            done += take;
        }
        done
    }

    /// Writes all of `bytes`, extending the length where they end behind it.
    pub(super) fn write_at(&mut self, bytes: &[u8], at: u64) {
        self.put(bytes, at);
        self.len = self.len.max(at + bytes.len() as u64);
    }

    /// Writes what lies below the length, and leaves the length as it is.
    pub(super) fn write_below_len(&mut self, bytes: &[u8], at: u64) {
        let rest = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX);
        self.put(bytes.get(..rest).unwrap_or(bytes), at);
    }

    fn put(&mut self, bytes: &[u8], at: u64) {
        let mut done = 0;
        while done < bytes.len() {
            let Some((page, within)) = place(at + done as u64) else {
                return;
            };
            let take = (PAGE - within).min(bytes.len() - done);
            if self.pages.len() <= page {
                self.pages.resize(page + 1, None);
            }
            let Some(slot) = self.pages.get_mut(page) else {
                return;
            };
            let slot = slot.get_or_insert_with(|| vec![0; PAGE].into_boxed_slice());
            if let (Some(to), Some(from)) = (
                slot.get_mut(within..within + take),
                bytes.get(done..done + take),
            ) {
                to.copy_from_slice(from);
            }
            done += take;
        }
    }

    /// Cuts, or extends with zeros.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len
            && let Some((page, within)) = place(len)
        {
            let keep = page + usize::from(within > 0);
            self.pages.truncate(keep);
            // What a later extension shows again must be zeros.
            if within > 0
                && let Some(Some(last)) = self.pages.get_mut(page)
                && let Some(tail) = last.get_mut(within..)
            {
                tail.fill(0);
            }
        }
        self.len = len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_read_as_zeros_and_a_cut_forgets() {
        let mut pages = Pages::default();
        let at = 3 * PAGE_U64 - 2;
        pages.write_at(b"abcd", at);
        assert_eq!(pages.len(), at + 4);
        assert!(pages.pages[..2].iter().all(Option::is_none));
        let mut buf = [1; 8];
        assert_eq!(pages.read_at(&mut buf, at - 2), 6);
        assert_eq!(&buf[..6], b"\0\0abcd");
        assert_eq!(pages.read_at(&mut buf, at + 4), 0);
        pages.set_len(at + 1);
        pages.set_len(at + 4);
        assert_eq!(pages.read_at(&mut buf, at), 4);
        assert_eq!(&buf[..4], b"a\0\0\0");
        pages.write_below_len(b"wxyz!!", at + 2);
        assert_eq!(pages.len(), at + 4);
        assert_eq!(pages.read_at(&mut buf, at), 4);
        assert_eq!(&buf[..4], b"a\0wx");
    }
}

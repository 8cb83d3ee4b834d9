//! Which gateway of the list a device tries next.
//!
//! In turn, with one exception: a gateway that is overloaded and says when to come back has kept a place
//! in its line for then. Elsewhere the device would stand at the end of another line, and its place would
//! be lost to everybody. So it comes back, once: a gateway that refuses it again is passed over.

/// A place in the list.
#[derive(Debug)]
pub(crate) struct Turns {
    count: usize,
    at: usize,
    /// The next attempt is where the last one was.
    comes_back: bool,
    /// The last attempt was such a one.
    came_back: bool,
}

impl Turns {
    /// Over so many gateways; the first is the one after `at`.
    pub(crate) fn new(count: usize, at: usize) -> Self {
        Self { count: count.max(1), at, comes_back: false, came_back: false }
    }

    /// The next one.
    pub(crate) fn next(&mut self) -> usize {
        self.came_back = std::mem::take(&mut self.comes_back);
        if !self.came_back {
            self.at = (self.at + 1) % self.count;
        }
        self.at
    }

    /// The last one has kept a place.
    pub(crate) fn come_back(&mut self) {
        self.comes_back = !self.came_back;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_was_kept_is_taken_once() {
        let mut turns = Turns::new(3, 2);
        assert_eq!([turns.next(), turns.next()], [0, 1]);
        turns.come_back();
        assert_eq!(turns.next(), 1);
        turns.come_back();
        assert_eq!(turns.next(), 2, "refused a second time");
        turns.come_back();
        assert_eq!([turns.next(), turns.next()], [2, 0]);
        assert_eq!(Turns::new(0, 0).next(), 0);
    }
}

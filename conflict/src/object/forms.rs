//! The forms that an object takes: one facet, several, none.

use super::{Content, Object, Several};
use crate::crdt::{Hash, Set, SortedSet};
use crate::scalar::{Scalar, Value};

impl Object {
    /// Brings the object into the form that its content has: after every change.
    pub(super) fn simplify(&mut self) {
        self.simplify_content();
        self.fit_sides();
    }

    /// Gives up the form for several facets when one or none is left.
    fn simplify_content(&mut self) {
        if let Content::Several(several) = &mut self.content {
            several.shown.take();
            let vacant = (
                several.string.is_vacant(),
                several.hash.is_vacant(),
                several.set.is_empty(),
                several.sorted_set.is_vacant(),
            );
            self.content = match vacant {
                (true, true, true, true) => Content::Empty,
                (false, true, true, true) => Content::String(std::mem::take(&mut several.string)),
                (true, false, true, true) => Content::Hash(Box::new(std::mem::take(&mut several.hash))),
                (true, true, false, true) => Content::Set(Box::new(std::mem::take(&mut several.set))),
                (true, true, true, false) => {
                    Content::SortedSet(Box::new(std::mem::take(&mut several.sorted_set)))
                }
                _ => return,
            };
            return;
        }
        let empty = match &self.content {
            Content::Empty | Content::Several(_) => false,
            Content::String(string) => string.is_vacant(),
            Content::Hash(hash) => hash.is_vacant(),
            Content::Set(set) => set.is_empty(),
            Content::SortedSet(sorted) => sorted.is_vacant(),
        };
        if empty {
            self.content = Content::Empty;
        }
    }

    pub(super) fn on_string<R>(&mut self, work: impl FnOnce(&mut Scalar<Value>) -> R) -> R {
        match &mut self.content {
            Content::String(string) => work(string),
            Content::Several(several) => work(&mut several.string),
            Content::Empty => {
                let mut string = Scalar::default();
                let result = work(&mut string);
                self.content = Content::String(string);
                result
            }
            _ => self.on_several(|several| work(&mut several.string)),
        }
    }

    pub(super) fn on_hash<R>(&mut self, work: impl FnOnce(&mut Hash) -> R) -> R {
        match &mut self.content {
            Content::Hash(hash) => work(hash),
            Content::Several(several) => work(&mut several.hash),
            Content::Empty => {
                let mut hash = Box::default();
                let result = work(&mut hash);
                self.content = Content::Hash(hash);
                result
            }
            _ => self.on_several(|several| work(&mut several.hash)),
        }
    }

    pub(super) fn on_set<R>(&mut self, work: impl FnOnce(&mut Set) -> R) -> R {
        match &mut self.content {
            Content::Set(set) => work(set),
            Content::Several(several) => work(&mut several.set),
            Content::Empty => {
                let mut set = Box::default();
                let result = work(&mut set);
                self.content = Content::Set(set);
                result
            }
            _ => self.on_several(|several| work(&mut several.set)),
        }
    }

    pub(super) fn on_sorted_set<R>(&mut self, work: impl FnOnce(&mut SortedSet) -> R) -> R {
        match &mut self.content {
            Content::SortedSet(sorted_set) => work(sorted_set),
            Content::Several(several) => work(&mut several.sorted_set),
            Content::Empty => {
                let mut sorted_set = Box::default();
                let result = work(&mut sorted_set);
                self.content = Content::SortedSet(sorted_set);
                result
            }
            _ => self.on_several(|several| work(&mut several.sorted_set)),
        }
    }

    /// Takes the form for several facets; [`Object::simplify`] gives it up again.
    pub(super) fn on_several<R>(&mut self, work: impl FnOnce(&mut Several) -> R) -> R {
        let mut several = std::mem::take(&mut self.content).into_several();
        let result = work(&mut several);
        self.content = Content::Several(several);
        result
    }
}

//! Who feeds whom in a run.

use std::collections::BTreeSet;

use super::random::Random;
use crate::graph::{Feed, Graph, RegionName};
use crate::shape as topology;

/// Who feeds whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Each region is fed by the one before it.
    Ring,
    /// Feeds in both directions around, all regions from both sides: every op comes twice.
    DoubleRing,
    /// All through region 0.
    Star,
    /// The same, and region 1 stands by.
    StandbyStar,
    /// Everyone feeds everyone its own ops.
    Mesh,
    /// Everyone feeds everyone everything: every op comes many times.
    FullMesh,
    /// A ring with random feeds added, all regions from each.
    Custom,
    /// The same, each region's ops from the nearest alone.
    NarrowCustom,
}

impl Shape {
    /// Every shape.
    pub const ALL: [Shape; 8] = [
        Shape::Ring,
        Shape::DoubleRing,
        Shape::Star,
        Shape::StandbyStar,
        Shape::Mesh,
        Shape::FullMesh,
        Shape::Custom,
        Shape::NarrowCustom,
    ];

    /// Reads a shape's name.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shape| format!("{shape:?}") == name)
    }

    /// The topology among `names`, numbers of regions.
    pub(super) fn graph(self, names: &[RegionName], random: &mut Random) -> Result<Graph, String> {
        let n = names.len();
        let feed = |from: usize, to: usize| Feed { from: names[from].clone(), to: names[to].clone() };
        let shape = match self {
            Shape::Ring => topology::Shape::Ring { order: names.to_vec() },
            Shape::Star | Shape::StandbyStar => topology::Shape::Star {
                hub: names[0].clone(),
                standby_hubs: if self == Shape::Star { Vec::new() } else { names[1..2.min(n)].to_vec() },
            },
            Shape::Mesh | Shape::FullMesh => topology::Shape::Mesh,
            Shape::DoubleRing | Shape::Custom | Shape::NarrowCustom => {
                let mut feeds = BTreeSet::new();
                for to in 0..n {
                    let before = (to + n - 1) % n;
                    let other = if self == Shape::DoubleRing { (to + 1) % n } else { random.index(n) };
                    feeds.extend(
                        [before, other].into_iter().filter(|from| *from != to).map(|from| feed(from, to)),
                    );
                }
                topology::Shape::Custom { feeds: feeds.into_iter().collect() }
            }
        };
        shape.graph(names).map_err(|errors| errors.to_string())
    }
}

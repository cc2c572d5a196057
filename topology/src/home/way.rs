//! By which neighbour a question goes to a region that there may be no link with.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use meridian_conflict::clock::RegionId;

use crate::graph::{Graph, RegionName};

/// To whom of `live` a question for `to` may be handed, the nearest to it first; nobody that it has `visited`. Distance
/// is that of the graph's links around those: where links are down on the way, the next region finds another.
pub fn first_hops(
    graph: &Graph,
    to: RegionId,
    visited: &[RegionId],
    live: &BTreeSet<RegionId>,
) -> Vec<RegionId> {
    if live.contains(&to) {
        return vec![to];
    }
    let distances = distances(graph, to, visited);
    let mut hops: Vec<(u32, RegionId)> = live
        .iter()
        .filter(|hop| !visited.contains(hop))
        .filter_map(|hop| Some((*distances.get(hop)?, *hop)))
        .collect();
    hops.sort_unstable();
    hops.into_iter().map(|(_, hop)| hop).collect()
}

/// How far each region is from `to`, without going over `visited`.
fn distances(graph: &Graph, to: RegionId, visited: &[RegionId]) -> BTreeMap<RegionId, u32> {
    let number = |name: &RegionName| RegionId::of(name.as_str());
    let mut found = BTreeMap::new();
    let mut queue: VecDeque<(&RegionName, u32)> = VecDeque::new();
    let begin = graph.members().iter().find(|name| number(name) == to);
    queue.extend(begin.map(|name| (name, 0)));
    while let Some((at, distance)) = queue.pop_front() {
        if visited.contains(&number(at)) || found.contains_key(&number(at)) {
            continue;
        }
        found.insert(number(at), distance);
        let next = graph.feeders(at).iter().chain(graph.fed_by(at));
        queue.extend(next.map(|name| (name, distance + 1)));
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::shape::Shape;

    fn id(name: &str) -> RegionId {
        RegionId::of(name)
    }

    fn ids(names: &[&str]) -> BTreeSet<RegionId> {
        names.iter().map(|name| id(name)).collect()
    }

    fn ring(names: &[&str]) -> Graph {
        let order: Vec<RegionName> = names.iter().map(|name| RegionName::new(name).unwrap()).collect();
        let members = order.clone();
        Shape::Ring { order }.graph(&members).unwrap()
    }

    #[test]
    fn a_question_takes_the_shorter_way_and_never_goes_back() {
        let graph = ring(&["a", "b", "c", "d", "e"]);
        let hops = |to, visited: &[&str], live: &[&str]| {
            let visited: Vec<RegionId> = visited.iter().map(|name| id(name)).collect();
            first_hops(&graph, id(to), &visited, &ids(live))
        };
        assert_eq!(hops("c", &["a"], &["b", "e"]), [id("b"), id("e")]);
        assert_eq!(hops("d", &["a"], &["b", "e"]), [id("e"), id("b")]);
        assert_eq!(hops("b", &["a"], &["b", "e"]), [id("b")], "a link of one's own is the shortest");
        assert_eq!(hops("c", &["a"], &["e"]), [id("e")], "around a link that is down");
        assert_eq!(hops("c", &["a", "e"], &["a", "d"]), [id("d")]);
        assert!(hops("c", &["a", "e", "d"], &["e"]).is_empty());
        assert!(hops("x", &["a"], &["b", "e"]).is_empty(), "a stranger");
    }
}

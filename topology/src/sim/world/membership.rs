//! Regions join and leave, and other topologies come into force, one region after the other.

use super::*;

/// Members load another topology within this time.
const RELOAD_MS: u64 = 500;

impl World<'_> {
    /// Members load the topology of now, each in its own time.
    pub(super) fn change_topology(&mut self) -> Result<(), String> {
        let members = self.nodes.iter().filter(|node| !node.out).map(|node| node.name.clone());
        let members: Vec<RegionName> = members.collect();
        let graph = self.shape.graph(&members, &mut self.random)?;
        self.note(|| format!("topology: {}", graph.shape()));
        self.rerouted = true;
        self.next_number += 1;
        let number = self.next_number;
        self.graphs.insert(number, graph);
        for node in 0..self.nodes.len() {
            if !self.nodes[node].out {
                self.after(1, RELOAD_MS, Event::Reload { node, graph: number });
            }
        }
        Ok(())
    }

    /// One region loads a topology.
    pub(super) fn reload(&mut self, node: usize, number: u64) -> Result<(), String> {
        let Some(graph) = self.graphs.get(&number).cloned() else { return Ok(()) };
        let now = MonoMs(self.now);
        let this = &mut self.nodes[node];
        let leaves = this.graph.members().iter().any(|member| !graph.members().contains(member));
        if this.out || (node == 0 && leaves && self.mutant == Mutant::RemovalIgnored) {
            return Ok(());
        }
        this.graph = graph.clone();
        if let Some(process) = &mut this.process {
            process.tell_local(self.mutant);
            process.replica.handle_topology(now, graph);
        }
        self.drain(node)
    }

    /// A region becomes a member, with an empty disk.
    pub(super) fn join(&mut self, node: usize) -> Result<(), String> {
        if !self.nodes[node].out {
            return Ok(());
        }
        self.note(|| format!("{node} joins"));
        if self.nodes[node].process.is_some() {
            self.crash(node, false, FOR_EVER)?;
        }
        self.happens("join", true);
        (self.nodes[node].out, self.nodes[node].removed_at) = (false, None);
        self.empty(node);
        self.change_topology()?;
        // It starts with the topology it belongs to.
        if let Some((_, graph)) = self.graphs.last_key_value() {
            self.nodes[node].graph = graph.clone();
        }
        self.start(node)
    }

    /// A region is removed, and does not know. What it alone has is lost with it.
    pub(super) fn leave(&mut self, node: usize) -> Result<(), String> {
        if self.nodes[node].out || self.is_last_whole(node) {
            return Ok(());
        }
        self.note(|| format!("{node} is removed"));
        self.nodes[node].removed_at = Some(self.now + RELOAD_MS);
        self.happens("leave", true);
        self.bury(node);
        self.change_topology()
    }
}

//! Healing, and what has to hold in the end.

use super::*;

impl World<'_> {
    pub(super) fn heal(&mut self) -> Result<(), String> {
        self.note(|| "heal".into());
        self.healed = true;
        self.report.healed_ms = self.now;
        self.cuts.clear();
        self.events.retain(|_, event| {
            !matches!(
                event,
                Event::Crash { .. }
                    | Event::Cut { .. }
                    | Event::Reset { .. }
                    | Event::Step { .. }
                    | Event::Client { .. }
            )
        });
        let wide =
            self.options.sync != Sync::Always && matches!(self.options.shape, Shape::Star | Shape::Mesh);
        for node in 0..self.nodes.len() {
            self.nodes[node].clock_offset = 0;
        }
        if wide {
            let (ids, mut unused) = (self.ids.clone(), Random::new(0));
            self.routes = self.options.routes(&ids, &mut unused, true);
            for node in 0..self.nodes.len() {
                let (now, routes) = (MonoMs(self.now), self.routes[node].clone());
                if let Some(process) = &mut self.nodes[node].process {
                    process.replica.handle_routes(now, routes, 0);
                }
                self.drain(node)?;
            }
        }
        self.at(self.now + 50, Event::Check);
        Ok(())
    }

    /// Whether nothing is left to do.
    pub(super) fn converged(&self) -> Result<(), String> {
        let mut first: Option<&VersionVector> = None;
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(process) = &node.process else { return Err(format!("region {at} is down")) };
            let applied = process.sequencer.applied();
            if process.replica.delivery().pending_ops() > 0 {
                let missing: Vec<Dot> = process.replica.delivery().missing().collect();
                return Err(format!("region {at} holds ops back that lack {missing:?}"));
            }
            if node.disk.durable < node.disk.log.len() {
                return Err(format!("region {at} is not flushed"));
            }
            if first.is_some_and(|first| first != applied) {
                return Err(format!("region {at} has {applied}, region 0 has {first:?}"));
            }
            first.get_or_insert(applied);
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) -> Result<(), String> {
        self.report.converged_ms = self.now;
        let wall = EPOCH_MS + self.now;
        let mut first = None;
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(process) = &node.process else { return Err("down".into()) };
            self.history.all_acknowledged_in(at, process.sequencer.applied())?;
            let first = *first.get_or_insert(&process.objects);
            same(&format!("regions 0 and {at}"), first, &process.objects, wall)?;
            // The state is a fold of the log, and what is on disk leads to it.
            if self.mutant == Mutant::None {
                let fresh = Disk { store: Default::default(), ..node.disk.clone() };
                let (_, folded) = recover(&fresh, self.mutant)?;
                same(&format!("region {at} and its log"), &process.objects, &folded, wall)?;
            }
            let (sequencer, recovered) = recover(&node.disk, self.mutant)?;
            same(&format!("region {at} and its disk"), &process.objects, &recovered, wall)?;
            if sequencer.applied() != process.sequencer.applied() {
                return Err(format!("region {at} would recover to another vector"));
            }
            for op in &node.disk.log {
                self.history.register(op)?;
            }
        }
        Ok(())
    }
}

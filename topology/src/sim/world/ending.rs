//! Healing, and what has to hold in the end.

use super::*;

impl World<'_> {
    pub(super) fn heal(&mut self) -> Result<(), String> {
        self.note(|| "heal".into());
        self.healed = true;
        self.report.healed_ms = self.now;
        self.cuts.retain(|_, until| *until == FOR_EVER);
        self.events.retain(|_, event| {
            !matches!(
                event,
                Event::Crash { .. }
                    | Event::Cut { .. }
                    | Event::Reset { .. }
                    | Event::Step { .. }
                    | Event::Client { .. }
                    | Event::Fault(_)
            )
        });
        for node in &mut self.nodes {
            node.clock_offset = 0;
        }
        self.at(self.now + 50, Event::Check);
        Ok(())
    }

    /// Whether nothing is left to do.
    pub(super) fn converged(&self) -> Result<(), String> {
        let mut first: Option<&VersionVector> = None;
        for (at, node) in self.alive() {
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
                return Err(format!("region {at} has {applied}, the first has {first:?}"));
            }
            first.get_or_insert(applied);
        }
        Ok(())
    }

    fn alive(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.nodes.iter().enumerate().filter(|(_, node)| !node.dead)
    }

    /// Whether routes are as usual again, unless something is broken for good.
    pub(super) fn settled(&mut self) -> Result<bool, String> {
        if self.report.converged_ms == 0 {
            self.report.converged_ms = self.now;
        }
        let unusual = self.alive().find_map(|(at, node)| {
            let process = node.process.as_ref()?;
            let links = process.replica.status();
            let more = links.iter().find(|link| !link.neighbour).map(|link| link.peer);
            (!process.replica.is_usual() || more.is_some()).then_some((at, more))
        });
        match unusual {
            Some((at, more)) if !self.options.is_maimed() => {
                if self.now > self.report.converged_ms + SETTLE_MS {
                    return Err(format!("routes of region {at} stay unusual, with a link to {more:?}"));
                }
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    pub(super) fn finish(&mut self) -> Result<(), String> {
        self.report.settled_ms = self.now;
        let wall = EPOCH_MS + self.now;
        let mut first = None;
        for (at, node) in self.nodes.iter().enumerate().filter(|(_, node)| !node.dead) {
            let Some(process) = &node.process else { return Err("down".into()) };
            self.history.all_acknowledged_in(at, process.sequencer.applied())?;
            let first = *first.get_or_insert(&process.objects);
            same(&format!("the first region and {at}"), first, &process.objects, wall)?;
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

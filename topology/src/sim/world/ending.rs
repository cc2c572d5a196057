//! Healing, and what has to hold in the end.

use super::*;

impl World<'_> {
    pub(super) fn heal(&mut self) -> Result<(), String> {
        self.note(|| "heal".into());
        self.healed = true;
        self.report.healed_ms = self.now;
        self.cuts.retain(|_, until| *until == FOR_EVER);
        self.noise.clear();
        for node in &mut self.nodes {
            (node.clock_offset, node.full_until) = (0, 0);
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
            if process.takeover.stage.is_some() {
                return Err(format!("region {at} is loading"));
            }
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
        self.nodes.iter().enumerate().filter(|(_, node)| !node.out)
    }

    /// What is told of who has what must be on the disks.
    pub(super) fn check_stability(&self) -> Result<(), String> {
        let at = (self.report.events / STABLE_CHECK_EVERY) as usize % self.nodes.len();
        let Some(process) = &self.nodes[at].process else { return Ok(()) };
        let stability = process.replica.stability();
        let stable = stability.stable();
        if self.nodes[at].out {
            return Ok(());
        }
        for (other, node) in self.nodes.iter().enumerate() {
            let region = self.ids[other];
            if !process.replica.graph().members().contains(&node.name) {
                continue;
            }
            if !stability.is_fenced(region) && !covers_all(&node.ever_durable, &stable) {
                return Err(format!("region {at} takes for stable what region {other} has not"));
            }
            if stability.row(region).is_some_and(|row| !covers_all(&node.ever_durable, &row.durable)) {
                return Err(format!("region {at} takes for durable in region {other} what is not"));
            }
        }
        let Some(dot) = process.sequencer.applied().clone().into_iter().next() else { return Ok(()) };
        let have = self.nodes.iter().filter(|node| covers(&node.ever_durable, &dot)).count();
        if stability.regions_with(&dot) > have {
            return Err(format!("region {at} takes {dot:?} for durable in more than {have} regions"));
        }
        Ok(())
    }

    pub(super) fn check_passed(&mut self) {
        let at = (self.report.events / STABLE_CHECK_EVERY) as usize % self.nodes.len();
        let now = MonoMs(self.now);
        let node = &mut self.nodes[at];
        if let Some(process) = &mut node.process {
            node.passed = node.passed.max(process.replica.stability_mut().passed(now));
            self.report.passed_ms = self.report.passed_ms.max(node.passed.ms().saturating_sub(EPOCH_MS));
        }
    }

    /// Whether routes are as usual again, unless something is broken for good.
    pub(super) fn settled(&mut self) -> Result<bool, String> {
        if self.report.converged_ms == 0 {
            self.note(|| "converged".into());
        }
        if self.report.converged_ms == 0 {
            self.report.converged_ms = self.now;
        }
        let unusual = self.alive().find_map(|(at, node)| {
            let process = node.process.as_ref()?;
            let out =
                |c: &&Connection| c.ends.iter().any(|end| self.nodes[*end].out) && c.open == [true, true];
            if let Some(link) = self.connections.values().find(out) {
                return Some((at, link.ends.iter().copied().find(|end| self.nodes[*end].out)));
            }
            let mut links = self.connections.values().filter(|c| c.ends[0] == at && c.open == [true, true]);
            let more = links.find(|c| !self.are_neighbours(at, self.ids[c.ends[1]])).map(|c| c.ends[1]);
            (!process.replica.is_usual() || more.is_some()).then_some((at, more))
        });
        let unstable = self.alive().find_map(|(at, node)| {
            let process = node.process.as_ref()?;
            let stability = process.replica.stability();
            let all = covers_all(&stability.stable(), process.sequencer.applied());
            (!all).then_some((at, stability.blocked_by()))
        });
        if let Some((at, by)) = unstable {
            let within = if self.options.is_maimed() { SETTLE_MS } else { STABLE_MS };
            if self.now > self.report.converged_ms + within {
                return Err(format!("region {at} does not find that all is stable; {by:?} blocks"));
            }
            return Ok(false);
        }
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
        let (mut first, mut applied) = (None, VersionVector::new());
        for (at, node) in self.nodes.iter().enumerate().filter(|(_, node)| !node.out) {
            let Some(process) = &node.process else { return Err("down".into()) };
            self.history.all_acknowledged_in(at, process.sequencer.applied())?;
            let first = *first.get_or_insert(&process.objects);
            same(&format!("the first region and {at}"), first, &process.objects, wall)?;
            let (sequencer, recovered) = recover(&node.disk, self.mutant)?;
            same(&format!("region {at} and its disk"), &process.objects, &recovered, wall)?;
            if sequencer.applied() != process.sequencer.applied() {
                return Err(format!("region {at} would recover to another vector"));
            }
            for op in &node.disk.log {
                self.history.register(op)?;
            }
            applied = process.sequencer.applied().clone();
        }
        if self.mutant == Mutant::None
            && let Some(first) = first
        {
            same("the first region and all ops", first, &self.history.fold(&applied)?, wall)?;
        }
        Ok(())
    }
}

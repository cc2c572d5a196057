//! Makes a failing schedule small: as few events, regions and peculiarities as still break the same
//! rule.

use super::{Failure, Mutant, Schedule, run_schedule};

/// Tries a failing schedule with ever fewer events, in halves, then quarters, down to one by one, and
/// with fewer regions; keeps what still breaks the same rule. At most `tries` runs.
pub fn shrink(failure: Box<Failure>, tries: u64) -> Box<Failure> {
    let mut shrinking = Shrinking { rule: failure.rule(), mutant: failure.mutant, least: failure, tries };
    loop {
        let before = shrinking.least.schedule.clone();
        shrinking.events();
        shrinking.regions();
        shrinking.peculiarities();
        if shrinking.tries == 0 || shrinking.least.schedule == before {
            return shrinking.least;
        }
    }
}

struct Shrinking {
    rule: String,
    mutant: Mutant,
    least: Box<Failure>,
    tries: u64,
}

impl Shrinking {
    /// Whether `schedule` breaks the rule, too. Then it is the least one from now on.
    fn take(&mut self, schedule: Schedule) -> bool {
        if self.tries == 0 || schedule == self.least.schedule {
            return false;
        }
        self.tries -= 1;
        match run_schedule(&schedule, self.mutant, None) {
            Err(failure) if failure.rule() == self.rule => {
                self.least = failure;
                true
            }
            _ => false,
        }
    }

    fn events(&mut self) {
        let mut size = self.least.schedule.options.script.len().div_ceil(2);
        while size > 0 && self.tries > 0 {
            let mut at = 0;
            while at < self.least.schedule.options.script.len() {
                let mut fewer = self.least.schedule.clone();
                let end = (at + size).min(fewer.options.script.len());
                fewer.options.script.drain(at..end);
                if !self.take(fewer) {
                    at = end;
                }
            }
            size /= 2;
        }
    }

    fn regions(&mut self) {
        while self.least.schedule.options.regions > 3 {
            let mut fewer = self.least.schedule.clone();
            let options = &mut fewer.options;
            options.regions -= 1;
            let (gone, inside) = (options.regions, |a: usize, b: usize| a.max(b) < options.regions);
            options.script.retain(|(_, fault)| !fault.nodes().contains(&Some(gone)));
            options.slow.retain(|(from, to, _)| inside(*from, *to));
            options.narrow.retain(|(from, to, _)| inside(*from, *to));
            options.absent.retain(|node| *node < gone);
            if !self.take(fewer) {
                return;
            }
        }
    }

    fn peculiarities(&mut self) {
        let plain: [fn(&mut Schedule); 5] = [
            |schedule| schedule.options.slow.clear(),
            |schedule| schedule.options.narrow.clear(),
            |schedule| schedule.options.skew_ms = 0,
            |schedule| schedule.options.pending_bytes_max = 1 << 20,
            |schedule| schedule.options.lease_ms = 600_000,
        ];
        for change in plain {
            let mut plainer = self.least.schedule.clone();
            change(&mut plainer);
            self.take(plainer);
        }
    }
}

//! What is done to a cluster from outside.

use meridian_proxy::link::relay::Conditions;
use rustix::process::{Pid, Signal, kill_process};

use super::Cluster;

impl Cluster {
    /// Sets what happens to datagrams from one region to another.
    pub fn conditions(&self, from: usize, to: usize, conditions: Conditions) {
        self.links.set(from, to, conditions);
    }

    /// Cuts the link between two regions, both ways.
    pub fn cut(&self, a: usize, b: usize) {
        self.links.cut(a, b, true);
    }

    /// Cuts what one region sends to another, not the other way.
    pub fn cut_one_way(&self, from: usize, to: usize) {
        self.links.cut_one_way(from, to);
    }

    /// Mends every link.
    pub fn mend_all(&self) {
        for i in self.all() {
            (0..i).for_each(|other| self.links.cut(i, other, false));
        }
    }

    /// Stops a region's process where it is, as a paused machine does.
    pub fn suspend(&self, i: usize) {
        self.signal(i, Signal::STOP);
    }

    /// Lets a region's process go on.
    pub fn resume(&self, i: usize) {
        self.signal(i, Signal::CONT);
    }

    fn signal(&self, i: usize, signal: Signal) {
        kill_process(Pid::from_raw(i32::try_from(self.pid(i)).unwrap()).unwrap(), signal).unwrap();
    }
}

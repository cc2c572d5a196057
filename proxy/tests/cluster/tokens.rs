//! Reading one's own writes in another region, and waiting for other regions to have them.

use meridian_proxy::resp::Value;

use crate::harness::{Cluster, Options, Shape};

#[test]
fn a_token_carries_writes_and_reads_to_another_region() {
    let cluster = Cluster::start(Options::new(Shape::Ring, 3));
    let (mut a, mut b, mut c) = (cluster.client(0), cluster.client(1), cluster.client(2));
    for round in 0..20 {
        let value = round.to_string();
        a.ok(&["SET", "profile", &value]);
        let written = a.text(&["MERIDIAN.TOKEN"]);
        c.ok(&["MERIDIAN.AWAIT", &written, "10000"]);
        assert_eq!(c.maybe(&["GET", "profile"]), Some(value.clone()));
        // What was read travels as well: c's token covers it.
        let read = c.text(&["MERIDIAN.TOKEN"]);
        b.ok(&["MERIDIAN.AWAIT", &read, "10000"]);
        assert_eq!(b.maybe(&["GET", "profile"]), Some(value));
    }
}

#[test]
fn a_token_that_cannot_be_honoured_is_an_error_not_a_stale_read() {
    let cluster = Cluster::start(Options::new(Shape::Mesh, 2));
    let (mut a, mut b) = (cluster.client(0), cluster.client(1));
    cluster.cut(0, 1);
    a.ok(&["SET", "k", "v"]);
    let token = a.text(&["MERIDIAN.TOKEN"]);
    let reply = b.call(&["MERIDIAN.AWAIT", &token, "200"]);
    assert!(matches!(&reply, Value::Error(text) if text.starts_with(b"TIMEOUT")), "{reply:?}");
    cluster.mend_all();
    b.ok(&["MERIDIAN.AWAIT", &token, "0"]);
    assert_eq!(b.maybe(&["GET", "k"]), Some("v".to_owned()));
    for bad in ["", "zz", "0102", &token[2..]] {
        assert!(b.call(&["MERIDIAN.AWAIT", bad, "1"]).is_error(), "{bad}");
    }
}

#[test]
fn wait_counts_the_regions_that_have_the_last_write() {
    for shape in [Shape::Ring, Shape::Star, Shape::Mesh] {
        let cluster = Cluster::start(Options::new(shape, 3));
        let mut a = cluster.client(1);
        assert_eq!(a.int(&["WAIT", "2", "0"]), 2, "nothing was written");
        for n in 0..10 {
            a.ok(&["SET", "k", &n.to_string()]);
            assert_eq!(a.int(&["WAIT", "2", "20000"]), 2, "{shape:?}");
            for other in [0, 2] {
                assert_eq!(cluster.client(other).maybe(&["GET", "k"]), Some(n.to_string()));
            }
        }
        assert!(a.call(&["WAIT", "-1", "1"]).is_error() && a.call(&["WAIT", "1", "soon"]).is_error());
    }
}

#[test]
fn wait_tells_the_truth_about_a_region_that_is_cut_off() {
    let cluster = Cluster::start(Options::new(Shape::Mesh, 3));
    cluster.cut(0, 2);
    cluster.cut(1, 2);
    let mut a = cluster.client(0);
    a.ok(&["SET", "k", "v"]);
    assert_eq!(a.int(&["WAIT", "1", "20000"]), 1);
    assert_eq!(a.int(&["WAIT", "2", "300"]), 1);
    cluster.mend_all();
    assert_eq!(a.int(&["WAIT", "2", "30000"]), 2);
}

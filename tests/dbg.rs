#![cfg(feature = "sim")]
use driftless::crdt::NEVER;
use driftless::sim::*;
use driftless::store::*;
use std::time::Duration;
fn dump(c: &mut SimCluster) {
    for at in 0..c.len() {
        println!("{}", c.node(at).unwrap().dbg());
        println!("== {at} {:?} log {}", c.node(at).unwrap().me().replica, c.node(at).unwrap().stats().log_records);
        println!(
            "members {:?} removed {:?}",
            c.node(at).unwrap().members().live().map(|m| m.0).collect::<Vec<_>>(),
            c.node(at).unwrap().members().removed
        );
        let s = c.store(at).unwrap();
        for id in s.partition_ids() {
            let p = s.read(id).unwrap();
            if p.log_len() > 0 {
                println!("ctx {:?} front {:?}", p.ctx(), p.frontier());
                for m in c.node(at).unwrap().members().live() {
                    println!("  {:?} {:?}", m.0, p.report_of(m.0));
                }
            }
        }
        for e in c.take_events(at) {
            println!("   {e:?}");
        }
    }
}
#[test]
fn dbg() {
    let mut c = SimCluster::new(4, SimConfig::default()).unwrap();
    c.run_for(Duration::from_millis(3000));
    let set = |c: &mut SimCluster, at: usize| {
        let store = c.store(at).unwrap();
        let space = store.spaces().open("r", Family::Register).unwrap();
        let k = KeyRef::new(&space, b"k");
        c.write(at, &k, Some(1), |p, t| p.set(&k, bytes::Bytes::from_static(b"v"), NEVER, t)).unwrap();
    };
    set(&mut c, 0);
    c.run_for(Duration::from_millis(5000));
    c.isolate(2);
    c.crash(1);
    c.run_for(Duration::from_millis(2000));
    c.start(1).unwrap();
    c.run_for(Duration::from_millis(3000));
    set(&mut c, 1);
    c.heal();
    c.run_for(Duration::from_millis(15000));
    dump(&mut c);
}

//! A wide area network in user space: a UDP relay between processes on one machine.
//!
//! For every ordered pair (dialler, target) there is a *relay*: the dialler is given the address
//! of its front socket instead of the target's, and the target sees the back socket as its peer.
//! What the target answers goes back through the same pair of sockets, so QUIC sees one stable
//! 4-tuple on both sides. Each direction is a [`Lane`] with the delay, jitter and loss of the path.
//!
//! # Invariants
//! * A relay forwards bytes as they are and in order; it never makes datagrams up.
//! * While a region is cut off nothing passes to or from it, and what was on its way is lost.
//! * Every task belongs to the [`Wan`] and ends with it.
//!
//! What is *not* here: bandwidth, and telling apart several diallers behind one front socket.

mod lane;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

pub(crate) use lane::Weather;
use lane::{Fate, Lane};

/// What IPv4 and UDP headers add to each datagram's payload.
const HEADER_BYTES: usize = 28;

/// How early datagrams are sent: tokio's timers fire up to a millisecond late, and with waking up
/// the measured mean is about this much. Being early by the mean makes the mean delay right.
const LEAD: Duration = Duration::from_micros(1_200);

/// What has passed one directed link, from the first datagram on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Traffic {
    /// Sent into the link, lost ones included, with IP and UDP headers.
    pub(crate) bytes: u64,
    pub(crate) datagrams: u64,
    /// Dropped by the dice.
    pub(crate) lost: u64,
    /// Dropped because one end was cut off.
    pub(crate) cut: u64,
    /// Dropped because the lane was full.
    pub(crate) overflow: u64,
}

/// The counters and the switch of one directed link.
#[derive(Debug, Default)]
struct Link {
    severed: AtomicBool,
    bytes: AtomicU64,
    datagrams: AtomicU64,
    lost: AtomicU64,
    cut: AtomicU64,
    overflow: AtomicU64,
}

impl Link {
    fn is_severed(&self) -> bool {
        self.severed.load(Ordering::Acquire)
    }

    fn traffic(&self) -> Traffic {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic {
            bytes: read(&self.bytes),
            datagrams: read(&self.datagrams),
            lost: read(&self.lost),
            cut: read(&self.cut),
            overflow: read(&self.overflow),
        }
    }
}

fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(u64::try_from(n).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// The network: all relays between a number of regions, which it knows by number.
#[derive(Debug)]
pub(crate) struct Wan {
    links: BTreeMap<(usize, usize), Arc<Link>>,
    relays: BTreeMap<(usize, usize), Arc<Relay>>,
    _lanes: JoinSet<()>,
}

impl Wan {
    /// Binds all sockets on the loopback and starts forwarding. `weather(from, to)` is asked once
    /// per direction; equal seeds lose the same datagrams of equal traffic.
    pub(crate) async fn start(sites: usize, seed: u64, weather: impl Fn(usize, usize) -> Weather) -> io::Result<Self> {
        let pairs = || (0..sites).flat_map(move |a| (0..sites).map(move |b| (a, b))).filter(|(a, b)| a != b);
        let links: BTreeMap<_, _> = pairs().map(|pair| (pair, Arc::new(Link::default()))).collect();
        let (mut relays, mut lanes) = (BTreeMap::new(), JoinSet::new());
        let (mut seeds, origin) = (fastrand::Rng::with_seed(seed), Instant::now());
        for (dialler, target) in pairs() {
            let relay = Arc::new(Relay::bind().await?);
            for (way, from, to) in [(Way::Out, dialler, target), (Way::Back, target, dialler)] {
                let Some(link) = links.get(&(from, to)) else { continue };
                let lane = Lane::new(weather(from, to), seeds.u64(..));
                let port = Port { relay: Arc::clone(&relay), link: Arc::clone(link), way, lane, origin };
                lanes.spawn(port.forward());
            }
            relays.insert((dialler, target), relay);
        }
        Ok(Self { links, relays, _lanes: lanes })
    }

    /// Returns where `dialler` finds `target`.
    pub(crate) fn entrance(&self, dialler: usize, target: usize) -> io::Result<SocketAddr> {
        match self.relays.get(&(dialler, target)) {
            Some(relay) => relay.front.local_addr(),
            None => Err(io::Error::other("no such pair of regions")),
        }
    }

    /// Says where a region really listens. Until then, what is sent to it is dropped.
    pub(crate) fn set_target(&self, site: usize, address: SocketAddr) {
        for ((_, target), relay) in &self.relays {
            if *target == site {
                *lock(&relay.target) = Some(address);
            }
        }
    }

    /// Cuts a region off from all others.
    pub(crate) fn cut(&self, site: usize) {
        self.switch(|from, to| from == site || to == site, true);
    }

    /// Connects a region again.
    pub(crate) fn heal(&self, site: usize) {
        self.switch(|from, to| from == site || to == site, false);
    }

    /// Cuts the directed links that `which` picks by where they begin and end, or connects them again.
    pub(crate) fn switch(&self, which: impl Fn(usize, usize) -> bool, severed: bool) {
        for (_, link) in self.links.iter().filter(|((from, to), _)| which(*from, *to)) {
            link.severed.store(severed, Ordering::Release);
        }
    }

    /// Returns what has passed from one region to another.
    pub(crate) fn traffic(&self, from: usize, to: usize) -> Traffic {
        self.links.get(&(from, to)).map(|link| link.traffic()).unwrap_or_default()
    }
}

/// The two sockets between one dialler and one target, and who was seen behind them.
#[derive(Debug)]
struct Relay {
    front: UdpSocket,
    back: UdpSocket,
    dialler: Mutex<Option<SocketAddr>>,
    target: Mutex<Option<SocketAddr>>,
}

impl Relay {
    async fn bind() -> io::Result<Self> {
        let any = (Ipv4Addr::LOCALHOST, 0);
        let (front, back) = (UdpSocket::bind(any).await?, UdpSocket::bind(any).await?);
        Ok(Self { front, back, dialler: Mutex::default(), target: Mutex::default() })
    }
}

fn lock(slot: &Mutex<Option<SocketAddr>>) -> std::sync::MutexGuard<'_, Option<SocketAddr>> {
    // An address is written in one assignment, so a poisoned lock holds a whole one.
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which way a lane leads through its relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// From the dialler to the target.
    Out,
    /// From the target to the dialler.
    Back,
}

/// One direction of one relay.
struct Port {
    relay: Arc<Relay>,
    link: Arc<Link>,
    way: Way,
    lane: Lane,
    origin: Instant,
}

impl Port {
    async fn forward(mut self) {
        // The largest UDP payload there is.
        let mut buffer = vec![0; 1 << 16];
        let relay = Arc::clone(&self.relay);
        let entry = if self.way == Way::Out { &relay.front } else { &relay.back };
        loop {
            let due = self.lane.next_due().map(|due| self.origin + due - LEAD);
            tokio::select! {
                // A datagram bounced by a dead process is an error of the next receive; it says
                // nothing about this socket.
                received = entry.recv_from(&mut buffer) => if let Ok((len, from)) = received {
                    self.take_in(buffer.get(..len).unwrap_or_default(), from);
                    while let Ok((len, from)) = entry.try_recv_from(&mut buffer) {
                        self.take_in(buffer.get(..len).unwrap_or_default(), from);
                    }
                },
                () = sleep_until(due.unwrap_or(self.origin)), if due.is_some() => {}
            }
            self.let_out().await;
        }
    }

    fn take_in(&mut self, bytes: &[u8], from: SocketAddr) {
        match self.way {
            Way::Out => *lock(&self.relay.dialler) = Some(from),
            // The back socket is open to everybody on this machine; only the target may answer.
            Way::Back if *lock(&self.relay.target) != Some(from) => return,
            Way::Back => {}
        }
        add(&self.link.bytes, bytes.len() + HEADER_BYTES);
        add(&self.link.datagrams, 1);
        if self.link.is_severed() {
            add(&self.link.cut, 1);
            return;
        }
        match self.lane.push(self.origin.elapsed(), bytes) {
            Fate::Held => {}
            Fate::Lost => add(&self.link.lost, 1),
            Fate::Overflow => add(&self.link.overflow, 1),
        }
    }

    async fn let_out(&mut self) {
        if self.link.is_severed() {
            add(&self.link.cut, self.lane.sever());
            return;
        }
        let now = self.origin.elapsed() + LEAD;
        while let Some(bytes) = self.lane.pop(now) {
            let (exit, to) = match self.way {
                Way::Out => (&self.relay.back, *lock(&self.relay.target)),
                Way::Back => (&self.relay.front, *lock(&self.relay.dialler)),
            };
            if let Some(to) = to {
                // A datagram that cannot be sent is a lost datagram, as on any network.
                drop(exit.send_to(&bytes, to).await);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAT: Weather = Weather { delay: Duration::ZERO, jitter: Duration::ZERO, loss: 0.0 };

    struct Pair {
        wan: Wan,
        dialler: UdpSocket,
        target: UdpSocket,
    }

    async fn pair(weather: Weather) -> Pair {
        let wan = Wan::start(2, 1, |_, _| weather).await.unwrap();
        let target = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        wan.set_target(1, target.local_addr().unwrap());
        let dialler = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        Pair { wan, dialler, target }
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn both_ends_see_one_stable_address_and_bytes_are_counted_per_direction() {
        run(async {
            let Pair { wan, dialler, target } = pair(FLAT).await;
            let door = wan.entrance(0, 1).unwrap();
            let mut buffer = [0; 64];
            let mut seen = Vec::new();
            for round in 0..5_u8 {
                dialler.send_to(&[round; 10], door).await.unwrap();
                let (len, from) = target.recv_from(&mut buffer).await.unwrap();
                assert_eq!(buffer[..len], [round; 10]);
                target.send_to(&buffer[..4], from).await.unwrap();
                let (len, back) = dialler.recv_from(&mut buffer).await.unwrap();
                assert_eq!((len, back), (4, door));
                seen.push(from);
            }
            seen.dedup();
            assert_eq!(seen.len(), 1);
            assert_eq!(wan.traffic(0, 1), Traffic { bytes: 5 * 38, datagrams: 5, ..Traffic::default() });
            assert_eq!(wan.traffic(1, 0), Traffic { bytes: 5 * 32, datagrams: 5, ..Traffic::default() });
        });
    }

    #[test]
    fn nothing_passes_while_cut_and_everything_after_the_heal() {
        run(async {
            let Pair { wan, dialler, target } = pair(FLAT).await;
            let door = wan.entrance(0, 1).unwrap();
            wan.cut(0);
            dialler.send_to(b"lost", door).await.unwrap();
            while wan.traffic(0, 1).cut == 0 {
                tokio::task::yield_now().await;
            }
            wan.heal(0);
            dialler.send_to(b"found", door).await.unwrap();
            let mut buffer = [0; 64];
            let (len, _) = target.recv_from(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..len], b"found");
        });
    }

    #[test]
    fn a_cut_of_one_direction_leaves_the_other() {
        run(async {
            let Pair { wan, dialler, target } = pair(FLAT).await;
            let door = wan.entrance(0, 1).unwrap();
            let mut buffer = [0; 64];
            dialler.send_to(b"first", door).await.unwrap();
            let (_, back) = target.recv_from(&mut buffer).await.unwrap();
            wan.switch(|from, to| (from, to) == (1, 0), true);
            target.send_to(b"lost", back).await.unwrap();
            dialler.send_to(b"second", door).await.unwrap();
            assert_eq!(target.recv_from(&mut buffer).await.unwrap().0, 6);
            while wan.traffic(1, 0).cut == 0 {
                tokio::task::yield_now().await;
            }
            wan.switch(|_, _| true, false);
            target.send_to(b"found", back).await.unwrap();
            assert_eq!(dialler.recv_from(&mut buffer).await.unwrap().0, 5);
        });
    }

    #[test]
    fn a_target_that_moves_is_found_at_its_new_address() {
        run(async {
            let Pair { wan, dialler, target } = pair(FLAT).await;
            let moved = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            wan.set_target(1, moved.local_addr().unwrap());
            dialler.send_to(b"hello", wan.entrance(0, 1).unwrap()).await.unwrap();
            let mut buffer = [0; 64];
            assert_eq!(moved.recv_from(&mut buffer).await.unwrap().0, 5);
            drop(target);
        });
    }
}

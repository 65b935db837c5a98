//! One UDP socket for everything: it dials, accepts, and owns the links.
//!
//! # Invariants
//! * Every dial, handshake and link is a task of one `JoinSet`; [`Endpoint::shutdown`] joins it.
//! * Everything the tasks report passes one bounded queue, so the order of one link's inputs is
//!   the order in which they happened.
//! * A link is known here before the node hears of it, and forgotten when the node hears of its end.
//! * Strangers are bounded: so many handshakes, so many bytes, so much time, and beyond a quarter
//!   of it only addresses that have proved they receive what is sent to them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quinn::udp::{UdpSockRef, UdpSocketState};
use quinn::{Connection, Incoming, ServerConfig, TokioRuntime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::config::Config;
use crate::error::{ConfigError, StartError};
use crate::node::{CloseCode, DialError, Input, LinkId, Output, Party, PeerIdentity, PeerSlot};
use crate::runtime::closing::{Closing, end_of, failure_of, varint};
use crate::runtime::dial::dial;
use crate::runtime::link::{Inbox, Link, LinkHandle, NotQueued};
use crate::runtime::tls::{self, Identity};
use crate::runtime::transport::{
    DIAL_TIMEOUT, DRAIN, HANDSHAKE, HANDSHAKES, HANDSHAKES_FREE_MIN, bound_strangers, transport,
};

/// Inputs waiting for the driver: at most 128 MiB of frames at the frame limit, 8 MiB at the usual
/// 64 KiB, and more than one turn of the driver can use.
const INPUTS: usize = 128;

/// The kernel's default of about 208 KiB lost 7,400 of 2.3 million packets even on loopback.
const SOCKET_BYTES: usize = 4 * 1024 * 1024;

/// Where to listen, and how the path is.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// The UDP address to listen on and to dial from. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// How long one dial may take per address. Default 1 s. Too small and a far peer is never
    /// reached (it takes about 1.5 round trips, more with losses); too large and a peer that comes
    /// back waits for a dead attempt to end.
    pub dial_timeout: Duration,
    /// Lets the kernel cut large sends into packets. Default on. Without it a link takes 2.4 times
    /// the CPU; some network cards and tunnels need it off.
    pub segmentation_offload: bool,
    /// Ignores random loss while the path has no queue. Default off. It keeps 94 instead of 1.2 of
    /// 100 Mbit/s at 1 % loss and 150 ms, and takes more than its share from others on bottlenecks
    /// with shallow queues: for dedicated links only.
    pub loss_tolerant: bool,
}

impl EndpointConfig {
    /// Listens on an address with the defaults.
    #[must_use]
    pub fn new(listen: SocketAddr) -> Self {
        Self { listen, dial_timeout: DIAL_TIMEOUT, segmentation_offload: true, loss_tolerant: false }
    }

    /// Takes what concerns the network from a node's configuration. A name to listen on is resolved
    /// here, which may block for as long as the system's resolver takes.
    ///
    /// # Errors
    /// [`StartError::Config`] when the address to listen on is none. Nothing was started.
    pub fn of(config: &Config) -> Result<Self, StartError> {
        let wrong = |why| ConfigError::Field { field: "node.listen", why };
        let mut found = config.node.listen.to_socket_addrs().map_err(|error| {
            tracing::warn!(listen = %config.node.listen, %error, "the address to listen on does not resolve");
            wrong("must be host:port, and the host must resolve")
        })?;
        let listen = found.next().ok_or_else(|| wrong("must resolve to an address"))?;
        Ok(Self { loss_tolerant: config.replication.loss_tolerant, ..Self::new(listen) })
    }
}

/// The process' UDP socket and every link on it.
pub struct Endpoint {
    quic: quinn::Endpoint,
    transport: Arc<quinn::TransportConfig>,
    dial_timeout: Duration,
    /// `None` while a link that was told to close has not ended yet.
    links: BTreeMap<LinkId, Option<LinkHandle>>,
    reports: mpsc::Receiver<Report>,
    shared: Shared,
    handshakes: Arc<Semaphore>,
    tasks: JoinSet<()>,
}

/// What every task needs to become a link.
#[derive(Clone, Debug)]
struct Shared {
    reports: mpsc::Sender<Report>,
    next_link: Arc<AtomicU64>,
}

/// What a task tells the endpoint.
#[derive(Debug)]
enum Report {
    Up { link: LinkId, handle: LinkHandle, peer: PeerIdentity, dialled: Option<PeerSlot>, up_there: Instant },
    Input(Input),
}

impl Inbox for mpsc::Sender<Report> {
    async fn put(&self, input: Input) -> Result<(), mpsc::error::SendError<Input>> {
        self.send(Report::Input(input)).await.map_err(|mpsc::error::SendError(report)| match report {
            Report::Input(input) => mpsc::error::SendError(input),
            // Only inputs are put here.
            Report::Up { .. } => mpsc::error::SendError(Input::Shutdown),
        })
    }
}

impl Endpoint {
    /// Binds the socket and is ready to dial and accept.
    ///
    /// # Errors
    /// [`StartError::Bind`] if the address is taken or not ours; [`StartError::Certificate`] if the
    /// identity cannot be used. Nothing runs then.
    ///
    /// # Panics
    /// Outside of a tokio runtime with time and IO enabled.
    pub fn bind(config: EndpointConfig, identity: &Identity) -> Result<Self, StartError> {
        let EndpointConfig { listen, dial_timeout, segmentation_offload, loss_tolerant } = config;
        let refused = |source| StartError::Bind { addr: listen, source };
        let transport = Arc::new(transport(segmentation_offload, loss_tolerant));
        let (server, client) = configurations(identity, &transport)?;

        let socket = UdpSocket::bind(listen).map_err(refused)?;
        enlarge_buffers(&socket);
        let runtime = Arc::new(TokioRuntime);
        let mut quic =
            quinn::Endpoint::new(quinn::EndpointConfig::default(), Some(server), socket, runtime).map_err(refused)?;
        quic.set_default_client_config(client);

        let (sender, reports) = mpsc::channel(INPUTS);
        Ok(Self {
            quic,
            transport,
            dial_timeout,
            links: BTreeMap::new(),
            reports,
            shared: Shared { reports: sender, next_link: Arc::new(AtomicU64::new(1)) },
            handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
            tasks: JoinSet::new(),
        })
    }

    /// Proves itself by another certificate and trusts other CAs from the next handshake on. Links that are up stay.
    ///
    /// # Errors
    /// [`StartError::Certificate`] if the identity cannot be used; the old one stays in use.
    pub fn present(&mut self, identity: &Identity) -> Result<(), StartError> {
        let (server, client) = configurations(identity, &self.transport)?;
        self.quic.set_server_config(Some(server));
        self.quic.set_default_client_config(client);
        Ok(())
    }

    /// Returns the address the socket is bound to.
    ///
    /// # Errors
    /// What the system says, if it does not know.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.quic.local_addr()
    }

    /// Waits for the next input from the network. It also lets peers in, so it must be awaited
    /// whenever the driver has nothing else to do.
    ///
    /// # Cancel safety
    /// Cancel safe: an input is either returned or still there for the next call.
    pub async fn next(&mut self) -> Input {
        loop {
            let report = tokio::select! {
                Some(report) = self.reports.recv() => report,
                Some(incoming) = self.quic.accept() => {
                    self.accept(incoming);
                    continue;
                }
                Some(done) = self.tasks.join_next() => {
                    if let Err(error) = done { tracing::error!(%error, "a task of the endpoint failed"); }
                    continue;
                }
            };
            match report {
                Report::Up { link, handle, peer, dialled, up_there } => {
                    self.links.insert(link, Some(handle));
                    return Input::LinkUp { link, peer, dialled, after: up_there.elapsed() };
                }
                Report::Input(input) => {
                    if let Input::LinkDown { link, .. } = &input {
                        self.links.remove(link);
                    }
                    return input;
                }
            }
        }
    }

    /// Does what the node wants of the network, and returns what is not for the network. Never
    /// waits: it queues, and what is for a link that has ended is dropped.
    pub fn apply(&mut self, output: Output) -> Option<Output> {
        match output {
            Output::Dial { slot, address, attempt } => self.dial(slot, address, attempt),
            Output::Control { link, bytes } => self.send(link, |handle| handle.control(bytes)),
            Output::Log { link, bytes, express } => self.send(link, |handle| handle.log(bytes, express)),
            Output::Beat { link, bytes } => self.send(link, |handle| {
                handle.beat(bytes);
                Ok(())
            }),
            Output::Close { link, code, reason } => self.close(link, Closing { code, reason }),
            other @ (Output::Resolved { .. }
            | Output::Event(_)
            | Output::Changed(_)
            | Output::Repaired { .. }
            | Output::Fetched { .. }) => {
                return Some(other);
            }
        }
        None
    }

    /// Says goodbye on every link, flushes what was queued, and joins every task. Takes as long as
    /// the farthest peer needs to acknowledge, at most 3 s when peers are cut off.
    ///
    /// # Cancel safety
    /// Dropping the future stops everything at once; peers then wait for their idle timeout.
    pub async fn shutdown(mut self) {
        // Strangers are turned away from here on; the links go on until they are flushed.
        self.quic.set_server_config(None);
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.close(link, Closing::goodbye());
        }
        while !self.links.is_empty() {
            match self.reports.recv().await {
                Some(Report::Input(Input::LinkDown { link, .. })) => {
                    self.links.remove(&link);
                }
                Some(_) => {}
                None => break,
            }
        }
        self.quic.close(varint(CloseCode::Goodbye), Closing::goodbye().reason.as_bytes());
        self.tasks.shutdown().await;
        if timeout(DRAIN, self.quic.wait_idle()).await.is_err() {
            tracing::debug!("some connections had not drained when the socket was closed");
        }
    }

    fn send(&mut self, link: LinkId, queue: impl FnOnce(&LinkHandle) -> Result<(), NotQueued>) {
        let Some(Some(handle)) = self.links.get(&link) else {
            return;
        };
        if queue(handle) == Err(NotQueued::Full) {
            self.close(link, Closing::overloaded());
        }
    }

    fn close(&mut self, link: LinkId, closing: Closing) {
        if let Some(handle) = self.links.get_mut(&link).and_then(Option::take) {
            handle.close(closing);
        }
    }

    fn dial(&mut self, slot: PeerSlot, host: String, attempt: usize) {
        let (quic, within, shared) = (self.quic.clone(), self.dial_timeout, self.shared.clone());
        self.tasks.spawn(async move {
            let reason = match dial(&quic, &host, attempt, within).await {
                Ok(connection) => match admit(&connection) {
                    Ok(peer) => return shared.live(connection, peer, Some(slot), Instant::now()).await,
                    Err(reason) => reason,
                },
                Err(reason) => reason,
            };
            shared.tell(Input::DialFailed { slot, reason }).await;
        });
    }

    fn accept(&mut self, incoming: Incoming) {
        let Ok(permit) = Arc::clone(&self.handshakes).try_acquire_owned() else {
            incoming.refuse();
            return;
        };
        if self.handshakes.available_permits() < HANDSHAKES_FREE_MIN && incoming.may_retry() {
            // A retry that cannot be sent leaves the stranger to try again.
            drop(incoming.retry());
            return;
        }
        let shared = self.shared.clone();
        self.tasks.spawn(async move { shared.accept(incoming, permit).await });
    }
}

/// What connections are accepted and dialled with.
fn configurations(
    identity: &Identity,
    transport: &Arc<quinn::TransportConfig>,
) -> Result<(ServerConfig, quinn::ClientConfig), StartError> {
    let mut server = ServerConfig::with_crypto(Arc::new(identity.server()?));
    bound_strangers(&mut server, Arc::clone(transport));
    let mut client = quinn::ClientConfig::new(Arc::new(identity.client()?));
    client.transport_config(Arc::clone(transport));
    Ok((server, client))
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("listen", &self.quic.local_addr())
            .field("links", &self.links)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Finishes a stranger's handshake and, if it is a peer, becomes its link.
    async fn accept(self, incoming: Incoming, permit: OwnedSemaphorePermit) {
        let from = incoming.remote_address();
        // The dialler's side is up once it has the answer that is sent now.
        let up_there = Instant::now();
        let result = match timeout(HANDSHAKE, incoming).await {
            Ok(Ok(connection)) => admit(&connection).map(|peer| (connection, peer)),
            Ok(Err(error)) => Err(failure_of(end_of(error))),
            Err(_) => Err(DialError::TimedOut),
        };
        drop(permit);
        match result {
            Ok((connection, peer)) => self.live(connection, peer, None, up_there).await,
            Err(reason) => {
                if matches!(reason, DialError::Tls { .. }) {
                    // Somebody's certificates need attention; the rest is diallers that gave up.
                    tracing::warn!(%from, %reason, "a connection was refused");
                } else {
                    tracing::debug!(%from, %reason, "a connection did not come to be");
                }
                // Never waits: a flood of strangers must not take the peers' places in the queue.
                if self.reports.try_send(Report::Input(Input::AcceptFailed { from, reason })).is_err() {
                    tracing::debug!(%from, "not reported: the driver is busy");
                }
            }
        }
    }

    /// Introduces a link and runs it to its end. The peer did not hold it for up before `up_there`.
    async fn live(self, connection: Connection, peer: PeerIdentity, dialled: Option<PeerSlot>, up_there: Instant) {
        let link = LinkId(self.next_link.fetch_add(1, Ordering::Relaxed));
        let (handle, running) = Link::new(link, connection, dialled.is_some(), self.reports.clone());
        if self.reports.send(Report::Up { link, handle, peer, dialled, up_there }).await.is_ok() {
            running.run().await;
        }
    }

    async fn tell(&self, input: Input) {
        if self.reports.put(input).await.is_err() {
            tracing::debug!("a dial ended after its driver");
        }
    }
}

/// Reads who the peer is; closes the connection if its certificate does not say.
fn admit(connection: &Connection) -> Result<PeerIdentity, DialError> {
    tls::peer_identity(connection).map_err(|fault| {
        connection.close(varint(CloseCode::Identity), fault.to_string().as_bytes());
        DialError::Tls { by: Party::Us, fault }
    })
}

/// Asks for large socket buffers and says what the kernel gave. Less of them costs packets, not
/// correctness.
fn enlarge_buffers(socket: &UdpSocket) {
    let asked = UdpSocketState::new(UdpSockRef::from(socket)).and_then(|state| {
        state.set_recv_buffer_size(UdpSockRef::from(socket), SOCKET_BYTES)?;
        state.set_send_buffer_size(UdpSockRef::from(socket), SOCKET_BYTES)?;
        let received = state.recv_buffer_size(UdpSockRef::from(socket))?;
        Ok((received, state.send_buffer_size(UdpSockRef::from(socket))?))
    });
    match asked {
        Ok((receive, send)) if receive.min(send) < SOCKET_BYTES => {
            tracing::info!(receive, send, asked = SOCKET_BYTES, "the kernel limits the UDP buffers");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the UDP buffers keep their size"),
    }
}

//! Load of datagrams, and how many of them come back.
//!
//! Each client is a socket of its own that keeps a small window of datagrams in flight: each one that comes back is answered
//! with the next. One that is not back by its deadline counts as lost, and the next one takes its place. All clients share
//! one thread, which asks the kernel who has something to read, and takes and sends a client's datagrams in one call each.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::datagrams::{Batch, much_room};

/// Sockets, each with an address of its own.
pub(crate) const CLIENTS: usize = 64;
/// Datagrams that a client has in flight. Those of all clients together fit twice in the receive buffer that Linux gives a
/// proxy's socket by default (256 of them; 192 are safe, as room is given back late): one that is slow must not lose any.
const WINDOW: usize = 2;
/// Bytes of a datagram.
pub(crate) const LENGTH: usize = 64;
/// Many times what a datagram takes behind all others, even where something else has the core now and then.
const DEADLINE: Duration = Duration::from_millis(500);
/// How often it is looked for lost ones; whether the run is over is looked at least that often.
const LOOK: Duration = Duration::from_millis(50);
/// Nothing takes longer than its deadline and a look.
const LONGEST: u64 = 1_000_000_000;
/// Run, client, place in the window, turn.
const HEAD: usize = 20;
const FILL: u8 = b'x';

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Datagrams that came back in time.
    pub(crate) echoes: u64,
    /// Those that did not.
    pub(crate) lost: u64,
    /// Those of them that came back after all, or came back twice.
    pub(crate) late: u64,
    pub(crate) seconds: f64,
    /// Nanoseconds from sending to echo.
    pub(crate) latency: Histogram<u64>,
}

/// Ends the thread when whoever waits for it has gone.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Keeps the windows of all clients full for `time`. An echo that is not what was sent is an error, and so is none at all.
pub(crate) async fn run(addr: SocketAddr, time: Duration) -> Result<Outcome, String> {
    let stop = Stop(Arc::default());
    let stopped = Arc::clone(&stop.0);
    let thread = tokio::task::spawn_blocking(move || Load::new(addr)?.run(time, &stopped));
    let outcome = thread.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    match outcome.echoes {
        0 => Err(format!("none of {} datagrams came back", outcome.lost)),
        _ => Ok(outcome),
    }
}

struct Load {
    epoll: Epoll,
    /// Tells this run's datagrams from those of one before, which may have had the same ports.
    run: u64,
    clients: Vec<Client>,
    batch: Batch<WINDOW>,
    outcome: Outcome,
}

/// A socket and its window.
struct Client {
    socket: UdpSocket,
    flights: [Flight; WINDOW],
}

/// One place of the window: how many it has sent, and when the last.
#[derive(Clone, Copy)]
struct Flight {
    turn: u32,
    sent: Instant,
}

impl Load {
    fn new(addr: SocketAddr) -> io::Result<Self> {
        let latency = Histogram::new_with_bounds(1, LONGEST, 3).map_err(io::Error::other)?;
        let outcome = Outcome { echoes: 0, lost: 0, late: 0, seconds: 0.0, latency };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let flights = [Flight { turn: 0, sent: Instant::now() }; WINDOW];
        let mut clients = Vec::with_capacity(CLIENTS);
        for number in 0..CLIENTS {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            much_room(&socket)?;
            socket.connect(addr)?;
            epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, number as u64))?;
            clients.push(Client { socket, flights });
        }
        Ok(Self { epoll, run: rand::random(), clients, batch: Batch::new(), outcome })
    }

    fn run(mut self, time: Duration, stop: &AtomicBool) -> io::Result<Outcome> {
        let began = Instant::now();
        for number in 0..CLIENTS {
            self.send(number, |_| true)?;
        }
        let mut events = [EpollEvent::empty(); CLIENTS];
        let mut looked = began;
        while began.elapsed() < time && !stop.load(Ordering::Relaxed) {
            let ready = match self.epoll.wait(&mut events, LOOK.as_millis() as u16) {
                Err(Errno::EINTR) => 0,
                ready => ready?,
            };
            for event in &events[..ready] {
                self.take(event.data() as usize)?;
            }
            if looked.elapsed() > LOOK {
                looked = Instant::now();
                self.replace_lost(looked)?;
            }
        }
        self.outcome.seconds = began.elapsed().as_secs_f64();
        Ok(self.outcome)
    }

    /// Takes what has come back to a client, and sends the next.
    fn take(&mut self, number: usize) -> io::Result<()> {
        let received = match self.batch.receive(&self.clients[number].socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            received => received?,
        };
        let now = Instant::now();
        let mut back = [false; WINDOW];
        for at in 0..received {
            let Some((place, turn)) = read(self.batch.at(at), self.run, number)? else {
                self.outcome.late += 1;
                continue;
            };
            let flight = &mut self.clients[number].flights[place];
            if flight.turn != turn {
                self.outcome.late += 1;
                continue;
            }
            // Were it to come a second time, it would be late.
            flight.turn += 1;
            back[place] = true;
            self.outcome.echoes += 1;
            let nanos = u64::try_from((now - flight.sent).as_nanos()).unwrap_or(LONGEST).max(1);
            self.outcome.latency.saturating_record(nanos);
        }
        self.send(number, |place| back[place])
    }

    fn replace_lost(&mut self, now: Instant) -> io::Result<()> {
        for number in 0..CLIENTS {
            let mut lost = [false; WINDOW];
            for (flight, lost) in self.clients[number].flights.iter_mut().zip(&mut lost) {
                if now.saturating_duration_since(flight.sent) > DEADLINE {
                    flight.turn += 1;
                    self.outcome.lost += 1;
                    *lost = true;
                }
            }
            self.send(number, |place| lost[place])?;
        }
        Ok(())
    }

    /// Sends a client's datagrams of those places of its window.
    fn send(&mut self, number: usize, places: impl Fn(usize) -> bool) -> io::Result<()> {
        let Self { run, clients, batch, .. } = self;
        let Client { socket, flights } = &mut clients[number];
        let (mut count, now) = (0, Instant::now());
        for (place, flight) in flights.iter_mut().enumerate().filter(|(place, _)| places(*place)) {
            flight.sent = now;
            write(batch.put(count, LENGTH), *run, number, place, flight.turn);
            count += 1;
        }
        if count == 0 { Ok(()) } else { batch.send(socket, count) }
    }
}

fn write(bytes: &mut [u8], run: u64, number: usize, place: usize, turn: u32) {
    bytes[..8].copy_from_slice(&run.to_le_bytes());
    bytes[8..12].copy_from_slice(&(number as u32).to_le_bytes());
    bytes[12..16].copy_from_slice(&(place as u32).to_le_bytes());
    bytes[16..HEAD].copy_from_slice(&turn.to_le_bytes());
    bytes[HEAD..].fill(FILL);
}

/// Place and turn of an echo; `None` if it is of another run. One that was changed, or is another client's, is an error.
fn read(bytes: &[u8], run: u64, number: usize) -> io::Result<Option<(usize, u32)>> {
    let bad = |what: String| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    if bytes.len() != LENGTH || bytes[HEAD..].iter().any(|byte| *byte != FILL) {
        return bad(format!("a datagram of {LENGTH} bytes came back changed, with {} bytes", bytes.len()));
    }
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if bytes[..8] != run.to_le_bytes() {
        return Ok(None);
    }
    let (client, place, turn) = (word(8) as usize, word(12) as usize, word(16));
    if client != number || place >= WINDOW {
        return bad(format!("client {number} got the echo of client {client}'s datagram"));
    }
    Ok(Some((place, turn)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Echoes until dropped, but treats some datagrams by their number as `answer` says: how often they come back.
    fn server(answer: impl Fn(u64) -> usize + Send + 'static) -> (SocketAddr, Stop) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(LOOK)).unwrap();
        let (addr, stop) = (socket.local_addr().unwrap(), Stop(Arc::default()));
        let stopped = Arc::clone(&stop.0);
        std::thread::spawn(move || {
            let (mut buffer, mut number) = ([0; 2 * LENGTH], 0);
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                for _ in 0..answer(number) {
                    socket.send_to(&buffer[..length], from).unwrap();
                }
                number += 1;
            }
        });
        (addr, stop)
    }

    #[tokio::test]
    async fn echoes_are_counted_once() {
        let (addr, _stop) = server(|number| if number % 10 == 3 { 2 } else { 1 });
        let outcome = run(addr, Duration::from_millis(300)).await.unwrap();
        assert!(outcome.echoes > 1000 && outcome.lost == 0, "{outcome:?}");
        assert!(outcome.late > outcome.echoes / 15 && outcome.late < outcome.echoes / 7, "{outcome:?}");
        assert_eq!(outcome.latency.len(), outcome.echoes);
    }

    #[tokio::test]
    async fn what_is_lost_is_counted_and_replaced() {
        // Every window would run dry if nothing took their place.
        let (addr, _stop) = server(|number| usize::from(!(1000..1128).contains(&number)));
        let outcome = run(addr, Duration::from_millis(1200)).await.unwrap();
        assert!((120..=128).contains(&outcome.lost), "{} lost", outcome.lost);
        assert!(outcome.echoes > 2000, "{}", outcome.echoes);
    }

    #[tokio::test]
    async fn nothing_at_all_is_an_error() {
        let (addr, _stop) = server(|_| 0);
        let error = run(addr, Duration::from_millis(800)).await.unwrap_err();
        assert_eq!(error, "none of 128 datagrams came back");
    }

    #[test]
    fn echoes_must_be_what_was_sent() {
        let mut bytes = [0; LENGTH];
        write(&mut bytes, 7, 3, 1, 99);
        assert_eq!(read(&bytes, 7, 3).unwrap(), Some((1, 99)));
        assert_eq!(read(&bytes, 8, 3).unwrap(), None, "of another run");
        assert!(read(&bytes, 7, 4).unwrap_err().to_string().contains("client 4 got the echo of client 3"));
        assert!(read(&bytes[1..], 7, 3).is_err());
        bytes[LENGTH - 1] = 0;
        assert!(read(&bytes, 7, 3).is_err());
    }
}

//! `analysis udp-replica`: sends each datagram back to whom it came from, as cheaply as can be.
//!
//! One thread, any number of ports. A datagram of more than [`ROOM`](crate::datagrams::ROOM) bytes comes back cut.

use std::io::{self, Write};
use std::net::Ipv4Addr;

use futures_util::future::try_join_all;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::datagrams::{Batch, much_room};

/// Datagrams that are taken at a time.
const BATCH: usize = 64;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many ports to listen on; free ones are taken, and printed on one line
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u16).range(1..=2000))]
    ports: u16,
}

/// Echoes until it is killed.
#[allow(clippy::print_stdout, reason = "whoever started it reads the ports")]
pub(crate) async fn run(args: &Args) -> io::Result<()> {
    let mut sockets = Vec::new();
    for _ in 0..args.ports {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        much_room(&socket)?;
        sockets.push(socket);
    }
    let ports = sockets.iter().map(|socket| Ok(socket.local_addr()?.port().to_string()));
    println!("{}", ports.collect::<io::Result<Vec<_>>>()?.join(","));
    io::stdout().flush()?;
    try_join_all(sockets.iter().map(echo)).await?;
    Ok(())
}

async fn echo(socket: &UdpSocket) -> io::Result<()> {
    let mut batch = Batch::<BATCH>::new();
    loop {
        let count = socket.async_io(Interest::READABLE, || batch.receive(socket)).await?;
        // What can't be sent is lost, as datagrams may be; whoever waits for it counts that.
        let _ = batch.send_back(socket, count);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn every_datagram_comes_back() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        client.connect(server.local_addr().unwrap()).await.unwrap();
        let exchange = async {
            for number in 0..200_u8 {
                client.send(&[number; 64]).await.unwrap();
            }
            let mut buffer = [0; 100];
            for number in 0..200_u8 {
                assert_eq!(client.recv(&mut buffer).await.unwrap(), 64);
                assert_eq!(buffer[0], number);
            }
        };
        tokio::select! {
            ended = echo(&server) => panic!("{ended:?}"),
            done = tokio::time::timeout(Duration::from_secs(10), exchange) => done.unwrap(),
        }
    }
}

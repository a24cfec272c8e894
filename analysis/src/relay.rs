//! `analysis relay`: a plain TCP relay, the floor under every proxy.
//!
//! It reads nothing of what it passes on: one connection to a replica per client connection, round robin, on one thread.
//! What a proxy costs beyond it is what HTTP costs.

use std::io;
use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

use crate::replica::listen;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// Where to pass connections on to, in turn
    #[arg(long, value_delimiter = ',', required = true)]
    members: Vec<SocketAddr>,
}

/// Relays until it is killed.
pub(crate) async fn run(args: &Args) -> io::Result<()> {
    let listener = listen(args.listen)?;
    for member in args.members.iter().cycle() {
        let (mut client, _) = listener.accept().await?;
        let member = *member;
        tokio::spawn(async move {
            // A connection that breaks off shows as a failed request at the load generator.
            let Ok(mut replica) = TcpStream::connect(member).await else { return };
            let _ = (client.set_nodelay(true), replica.set_nodelay(true));
            let _ = copy_bidirectional(&mut client, &mut replica).await;
        });
    }
    Ok(())
}

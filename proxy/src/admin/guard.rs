//! Bounds what the clients of the admin server can hold: connections, time and bytes.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Connections at once; more wait in the kernel's queue.
pub(super) const CONNECTIONS_MAX: usize = 64;

/// The longest from a connection's start, or the last byte it was sent, to the next byte of an answer.
/// One bound for slow requests, slow answers, slow readers and idle connections.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(10);

/// The largest request, head and body together. How much of it may be body is up to the page.
pub(super) const REQUEST_MAX_BYTES: usize = 16 << 10;

/// How long to wait when the system gives no connection, mostly for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A listener whose connections are bounded.
pub(super) struct Guarded {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Guarded {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }
}

impl axum::serve::Listener for Guarded {
    type Io = Bounded<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // Nobody closes the semaphore; without a place the connection would merely be uncounted.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => return (Bounded::new(stream, place, SILENCE_MAX), peer),
                Err(error) => {
                    tracing::debug!(%error, "cannot accept an admin connection");
                    sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when it is silent for too long or asks for too much.
pub(super) struct Bounded<S> {
    stream: S,
    deadline: Pin<Box<Sleep>>,
    silence_max: Duration,
    /// Bytes read since the last write.
    asked: usize,
    _place: Option<OwnedSemaphorePermit>,
}

impl<S> Bounded<S> {
    fn new(stream: S, place: Option<OwnedSemaphorePermit>, silence_max: Duration) -> Self {
        Self { stream, deadline: Box::pin(sleep(silence_max)), silence_max, asked: 0, _place: place }
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.deadline.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    fn answered(&mut self, written: &Poll<io::Result<usize>>) {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.asked = 0;
            let deadline = Instant::now() + self.silence_max;
            self.deadline.as_mut().reset(deadline);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.asked += buffer.filled().len().saturating_sub(before);
        if self.asked > REQUEST_MAX_BYTES {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "request too large")));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.answered(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.answered(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use axum::serve::Listener;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_request_has_a_largest_size() {
        let (mut client, server) = duplex(REQUEST_MAX_BYTES * 2);
        let mut server = Bounded::new(server, None, SILENCE_MAX);
        client.write_all(&vec![b'x'; REQUEST_MAX_BYTES]).await.unwrap();
        server.read_exact(&mut vec![0; REQUEST_MAX_BYTES]).await.unwrap();
        server.write_all(b"answer").await.unwrap();
        client.write_all(&vec![b'x'; REQUEST_MAX_BYTES + 1]).await.unwrap();
        let error = server.read_exact(&mut vec![0; REQUEST_MAX_BYTES + 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_silent_client_is_left() {
        let (_client, server) = duplex(16);
        let mut server = Bounded::new(server, None, Duration::from_millis(1));
        assert_eq!(server.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_left() {
        let (_client, server) = duplex(16);
        let mut server = Bounded::new(server, None, Duration::from_millis(1));
        assert_eq!(server.write_all(&[0; 17]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn connections_have_a_largest_number() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut guarded = Guarded::new(listener);
        let mut clients = Vec::new();
        let mut accepted = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            clients.push(TcpStream::connect(address).await.unwrap());
            accepted.push(guarded.accept().await.0);
        }
        clients.push(TcpStream::connect(address).await.unwrap());
        {
            let one_more = std::pin::pin!(guarded.accept());
            assert!(one_more.poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
        }
        accepted.pop();
        guarded.accept().await;
    }
}

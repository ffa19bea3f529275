//! [`Resolver`]: the addresses of a host, looked up by few threads of its own. IO: threads that ask the system.
//!
//! The system's call can't be ended, and hangs while no name server answers. So it has no place on the runtime's
//! blocking threads, which others need, and each call keeps its place here until it really ends.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::{
    sync::{Semaphore, oneshot},
    time::timeout,
};

/// At most this many names are looked up at a time.
const PLACES: usize = 4;
/// The longest wait for one of these places. A name server that is there answers within it.
const WAIT: Duration = Duration::from_secs(5);
/// The most addresses of a host that are tried.
const MAX_ADDRESSES: usize = 8;

type LookUp = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

/// Looks up names.
pub struct Resolver {
    places: Arc<Semaphore>,
    look_up: LookUp,
}

impl Resolver {
    /// Returns one that asks the system.
    pub fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(PLACES)), look_up: ask_system }
    }

    /// Returns the addresses of a host.
    ///
    /// # Errors
    /// Fails where it has none, or the system is still busy with other names.
    pub async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let busy = || {
            let problem = format!(
                "its name was not looked up: {PLACES} other names are, and no name server answers. Is DNS there?"
            );
            io::Error::other(problem)
        };
        let place = timeout(WAIT, Arc::clone(&self.places).acquire_owned()).await;
        let place = place.ok().and_then(Result::ok).ok_or_else(busy)?;
        let (answer, answered) = oneshot::channel();
        let (host, look_up) = (host.to_owned(), self.look_up);
        thread::Builder::new().name("look-up".to_owned()).spawn(move || {
            // Nobody may be waiting any more.
            let _ = answer.send(look_up(&host, port));
            drop(place);
        })?;
        answered.await.unwrap_or_else(|_| Err(io::Error::other("its name could not be looked up")))
    }
}

fn ask_system(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((host, port).to_socket_addrs()?.take(MAX_ADDRESSES).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    static HANGS: Mutex<()> = Mutex::new(());

    fn hang(host: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        if host.starts_with("hangs") {
            drop(HANGS.lock());
        }
        Ok(vec![])
    }

    #[tokio::test]
    async fn an_address_and_a_name_of_the_system_are_found() {
        let resolver = Resolver::new();
        assert_eq!(resolver.addresses("192.0.2.1", 443).await.unwrap(), ["192.0.2.1:443".parse().unwrap()]);
        assert_eq!(resolver.addresses("::1", 443).await.unwrap(), ["[::1]:443".parse().unwrap()]);
        assert!(resolver.addresses("localhost", 80).await.unwrap().iter().all(|address| address.ip().is_loopback()));
    }

    #[tokio::test]
    async fn a_look_up_that_hangs_keeps_its_place_until_it_ends_and_no_thread_of_the_runtime() {
        let resolver = Resolver { look_up: hang, ..Resolver::new() };
        let held = HANGS.lock().unwrap();
        for at in 0..PLACES {
            let name = format!("hangs-{at}.example");
            assert!(timeout(Duration::from_millis(10), resolver.addresses(&name, 443)).await.is_err());
        }
        let error = resolver.addresses("good.example", 443).await.unwrap_err().to_string();
        assert!(error.contains("Is DNS there?"), "{error}");
        drop(held);
        assert!(resolver.addresses("good.example", 443).await.is_ok());
    }
}

//! `Newest`: a slot that holds the newest value until its reader takes it out. No IO.
//!
//! A report of a thousand BpfPrograms takes some MiB. A channel that keeps its last value would hold it for as long as
//! the agent runs.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// A slot for values of which only the newest counts. It has one reader.
#[derive(Debug)]
pub struct Newest<T> {
    value: Mutex<Option<T>>,
    put: Notify,
}

impl<T> Default for Newest<T> {
    fn default() -> Self {
        Self { value: Mutex::default(), put: Notify::new() }
    }
}

impl<T> Newest<T> {
    /// Puts a value in the place of the one that lies there, which it returns.
    pub fn put(&self, value: T) -> Option<T> {
        let before = self.value.lock().unwrap_or_else(PoisonError::into_inner).replace(value);
        self.put.notify_one();
        before
    }

    /// Takes the value out, if there is one.
    pub fn try_take(&self) -> Option<T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Takes the value out as soon as there is one. Whoever stops waiting loses none.
    pub async fn take(&self) -> T {
        loop {
            if let Some(value) = self.try_take() {
                return value;
            }
            self.put.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn the_newest_value_is_taken_once() {
        let newest = Arc::new(Newest::default());
        assert_eq!(newest.put(1), None);
        assert_eq!(newest.put(2), Some(1));
        assert_eq!((newest.take().await, newest.try_take()), (2, None));
        let brief = Duration::from_millis(1);
        assert!(timeout(brief, newest.take()).await.is_err(), "nothing was put since");
        let reader = tokio::spawn({
            let newest = Arc::clone(&newest);
            async move { newest.take().await }
        });
        newest.put(3);
        assert_eq!(reader.await.unwrap(), 3);
    }
}

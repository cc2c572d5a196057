//! `meridian serve`: one region until a signal.

use std::path::Path;

use crate::config::{FileChecks, Settings};
use crate::service::Service;

use super::signals::Signals;

/// Reads the configuration anew. What is wrong with it is told, and changes nothing.
async fn reload(service: &Service) {
    let region = std::sync::Arc::clone(service.region());
    match tokio::task::spawn_blocking(move || region.reload()).await {
        Ok(Ok(true)) => tracing::info!("reloaded"),
        Ok(Ok(false)) => tracing::info!("reloaded: nothing has changed"),
        Ok(Err(error)) => tracing::error!(%error, "the configuration was not reloaded; nothing changed"),
        Err(error) => tracing::error!(%error, "reloading ended badly"),
    }
}

/// Runs the region configured at `config` until SIGTERM or SIGINT. A region that has to begin anew is stopped and started
/// again.
///
/// # Errors
/// Configuration errors, what keeps the region from starting, and a drain that was cut off.
pub async fn run(config: &Path) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    loop {
        let settings = Settings::load_with(config, FileChecks::Require)?;
        let mut starting = Box::pin(Service::start(settings));
        let started = tokio::select! {
            started = &mut starting => Some(started?),
            name = signals.next() => {
                tracing::info!(signal = name, "ending as soon as the start is done");
                None
            }
        };
        let Some(service) = started else {
            // Recovery is not interrupted: a start that ends in order is as good as none.
            return signals.drain(async { starting.await?.stop().await }).await;
        };
        service.region().set_config_file(config);
        match until_ended(&service, &mut signals).await {
            Some(name) => {
                tracing::info!(signal = name, "ending in order");
                return signals.drain(service.stop()).await;
            }
            None => signals.drain(service.stop()).await?,
        }
    }
}

/// The signal that ends the service; `None` when it is to begin anew.
async fn until_ended(service: &Service, signals: &mut Signals) -> Option<&'static str> {
    loop {
        tokio::select! {
            signal = signals.next_or_reload() => match signal {
                Some(name) => return Some(name),
                None => reload(service).await,
            },
            () = service.region().begins_anew() => return None,
        }
    }
}

//! What `/status` warns of.

use std::time::{Duration, SystemTime};

use super::status::seconds_until;
use crate::region::Region;
use crate::session::password::Password;

/// A certificate that ends sooner than this is warned of.
const CERT_WARNING: Duration = Duration::from_secs(30 * 86_400);

/// What somebody should look at.
pub(super) fn of(region: &Region) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(because) = &region.recovered().new_incarnation {
        warnings.push(format!("this start took a new incarnation: {because}"));
    }
    if region.is_strained() {
        warnings.push("writers wait: the store is far behind or store.memory_max is too small".to_owned());
    }
    let parked = region.metrics().ops.parked_ops.get();
    if parked > 0 {
        warnings.push(format!("{parked} ops could not be applied and were set aside: see parked"));
    }
    if let Some(trouble) = region.certificate().trouble() {
        warnings.push(format!("the certificate files were changed and are not in force: {trouble}"));
    }
    if let Some(trouble) = region.password().and_then(Password::trouble) {
        warnings.push(format!("auth.password_file {trouble}: the former password stays in force"));
    }
    if let Some(end) = region.certificate().end() {
        let left = seconds_until(end, SystemTime::now());
        if left <= 0.0 {
            warnings.push("tls.cert has ended: every peer refuses it".to_owned());
        } else if left < CERT_WARNING.as_secs_f64() {
            warnings.push(format!("tls.cert ends in {:.0} days", (left / 86_400.0).floor()));
        }
    }
    let settings = region.settings();
    if settings.admin.token_file.is_none() && !settings.listen.admin.ip().to_canonical().is_loopback() {
        warnings.push(
            "listen.admin can be reached from other machines: set admin.token_file, or it shows no conflicts \
             and changes nothing"
                .to_owned(),
        );
    }
    warnings
}

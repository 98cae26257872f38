//! So many requests per second and project (Nova's old `RateLimitingMiddleware`); off unless configured.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::Timestamp;
use nova_core::clock::Clock;

use crate::api::{ApiError, Filter, HandlerResult, Next, Request};

/// Projects that are remembered at most; the filter forgets all when there are more.
const MAX_PROJECTS: usize = 10_000;

/// A counter per project, emptied every second.
pub struct RateLimitFilter {
    per_second: Option<u32>,
    clock: Arc<dyn Clock>,
    counts: Mutex<(i64, BTreeMap<String, u32>)>,
}

impl RateLimitFilter {
    /// `None` lets everything through.
    pub fn new(per_second: Option<u32>, clock: Arc<dyn Clock>) -> Self {
        Self { per_second, clock, counts: Mutex::new((0, BTreeMap::new())) }
    }

    fn admits(&self, limit: u32, project: &str, now: Timestamp) -> bool {
        let Ok(mut guard) = self.counts.lock() else { return true };
        let (second, counts) = &mut *guard;
        if *second != now.as_second() || counts.len() >= MAX_PROJECTS {
            *second = now.as_second();
            counts.clear();
        }
        let count = counts.entry(project.to_owned()).or_insert(0);
        *count = count.saturating_add(1);
        *count <= limit
    }
}

#[async_trait]
impl Filter for RateLimitFilter {
    async fn call(&self, request: Request, next: Next<'_>) -> HandlerResult {
        if let (Some(limit), Some(context)) = (self.per_second, &request.context)
            && !self.admits(limit, context.project_id.as_str(), self.clock.now())
        {
            return Err(ApiError::TooManyRequests { retry_after: 1 });
        }
        next.run(request).await
    }
}

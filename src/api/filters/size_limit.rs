//! Bodies that are declared too long are refused before they are read (oslo.middleware, `sizelimit`).

use async_trait::async_trait;
use http::header;

use crate::api::{ApiError, Filter, HandlerResult, Next, Request};

/// Refuses by `Content-Length`, and sets the limit for bodies that come without one.
#[derive(Debug, Clone, Copy)]
pub struct SizeLimitFilter {
    limit: usize,
}

impl SizeLimitFilter {
    /// At most `limit` bytes.
    pub const fn new(limit: usize) -> Self {
        Self { limit }
    }
}

#[async_trait]
impl Filter for SizeLimitFilter {
    async fn call(&self, mut request: Request, next: Next<'_>) -> HandlerResult {
        let declared = request.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        if declared.and_then(|text| text.parse::<u64>().ok()).is_some_and(|length| length > self.limit as u64) {
            return Err(ApiError::TooLarge);
        }
        request.body_limit = request.body_limit.min(self.limit);
        next.run(request).await
    }
}

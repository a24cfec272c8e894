//! What people and programs ask the balancer itself.
//!
//! | request | where | module |
//! |---|---|---|
//! | `GET /rep`, `POST /add`, `DELETE /rm`, `POST /rm` | public listener | [`assignment`] |
//! | `GET /healthz`, `/readyz`, `/metrics` | admin listener | [`api`] |
//! | `GET /api/v1/replicas`, `/api/v1/ring`, `/api/v1/relays` | admin listener | [`api`] |

pub mod api;
pub mod assignment;
mod error;
mod page;
pub mod relays;

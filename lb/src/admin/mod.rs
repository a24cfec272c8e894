//! What people and programs ask the balancer itself.
//!
//! | request | where | module |
//! |---|---|---|
//! | `GET /rep`, `POST /add`, `DELETE /rm`, `POST /rm` | public listener | [`assignment`] |
//! | `GET /healthz`, `/readyz`, `/metrics` | admin listener | [`api`] |
//! | `GET /api/v1/replicas`, `PATCH /api/v1/replicas/{hostname}` | admin listener | `replicas` |
//! | `GET /api/v1/ring` | admin listener | [`ring`] |
//! | `GET /api/v1/explain` | admin listener | [`explain`] |
//! | `GET /api/v1/relays` | admin listener | [`relays`] |
//! | `GET /api/v1/decisions`, `GET`, `POST /api/v1/deploy` | admin listener | `deploy` |

pub mod api;
pub mod assignment;
mod body;
mod deploy;
mod error;
pub mod explain;
mod page;
mod query;
pub mod relays;
mod replicas;
pub mod ring;

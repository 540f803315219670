//! Containers of the real engine with crun and conmon; needs root, busybox-static, crun, conmon.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod host;
mod life;
mod mounts;
mod one_container;
mod streams;

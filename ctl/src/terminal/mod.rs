//! The user's terminal: raw mode, its size, and the keys that detach.

mod keys;

use std::io::stdin;
use std::os::fd::AsFd;

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

pub use keys::{DetachKeys, KeyFilter};

/// Puts the terminal in raw mode while it lives; the old mode comes back on drop, also on a panic.
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// `None` when standard input is no terminal.
    pub fn enter() -> Option<Self> {
        let input = stdin();
        let before = tcgetattr(input.as_fd()).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(input.as_fd(), SetArg::TCSANOW, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nothing can be done if the terminal is gone.
        let _ = tcsetattr(stdin().as_fd(), SetArg::TCSANOW, &self.before);
    }
}

/// Turns the echo off while it lives, for a password.
pub struct NoEcho {
    before: Termios,
}

impl NoEcho {
    /// `None` when standard input is no terminal.
    pub fn enter() -> Option<Self> {
        let input = stdin();
        let before = tcgetattr(input.as_fd()).ok()?;
        let mut quiet = before.clone();
        quiet
            .local_flags
            .remove(nix::sys::termios::LocalFlags::ECHO);
        tcsetattr(input.as_fd(), SetArg::TCSANOW, &quiet).ok()?;
        Some(Self { before })
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin().as_fd(), SetArg::TCSANOW, &self.before);
    }
}

/// Height and width in characters; `None` without a terminal.
pub fn size() -> Option<(u16, u16)> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes one winsize to the pointer, which is valid for the call.
    let answer = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (answer == 0 && size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

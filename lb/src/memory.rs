//! Giving memory back to the system after a burst.
//!
//! The C library's allocator keeps freed memory below the top of its heap. A burst of a thousand connections would stay
//! resident for as long as one of the later ones lives.

/// Returns free pages to the system. Takes about a millisecond, so it is for rare occasions.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
pub fn give_back() {
    // SAFETY: may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other C libraries return memory by themselves.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}

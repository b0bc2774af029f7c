//! Tests of the order on real lanes, where senders lie and where lanes are news.

mod liars;
mod news;

use super::*;

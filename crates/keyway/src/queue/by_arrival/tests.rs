//! Tests of the order by itself.

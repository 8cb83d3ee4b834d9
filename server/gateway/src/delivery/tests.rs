//! Tests of single rules of delivery.

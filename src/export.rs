//! Files for the platforms that are to know the devices.

pub mod per_order;

//! The rules of orders.

use super::{Audit, BrokenRule, Order};
use crate::ledger::{device_list::DevicesListed, order::OrderTerms};

impl Audit {
    pub(super) fn create_order(&mut self, terms: &OrderTerms) -> Result<(), BrokenRule> {
        let number = self.orders.len() as u32;
        let terms = terms.clone();
        if self.order_numbers.insert(terms.id.clone(), number).is_some() {
            return Err(BrokenRule::OrderTwice(terms.id));
        }
        self.orders.push(Order {
            terms,
            closed: false,
            paused: false,
            listed: 0,
            used: 0,
            exports: Vec::new(),
            unexported: 0,
        });
        Ok(())
    }

    pub(super) fn close_order(&mut self, id: &str) -> Result<(), BrokenRule> {
        let order = self.order_mut(id).ok_or_else(|| BrokenRule::OrderUnknown(id.to_owned()))?;
        order.closed = true;
        Ok(())
    }

    pub(super) fn change_quantity(&mut self, id: &str, quantity: u64) -> Result<(), BrokenRule> {
        let order = self.order_mut(id).ok_or_else(|| BrokenRule::OrderUnknown(id.to_owned()))?;
        if order.closed {
            return Err(BrokenRule::OrderClosed(id.to_owned()));
        }
        if quantity < order.used {
            return Err(BrokenRule::QuantityBelowUsed { order: id.to_owned(), quantity, used: order.used });
        }
        order.terms.quantity = quantity;
        Ok(())
    }

    pub(super) fn list_devices(&mut self, list: &DevicesListed) -> Result<(), BrokenRule> {
        let order = self.order_mut(&list.order).ok_or_else(|| BrokenRule::OrderUnknown(list.order.clone()))?;
        let whole = order.terms.list.map_or(0, |list| list.devices);
        if list.first != order.listed || list.first.saturating_add(list.devices.len() as u64) > whole {
            return Err(BrokenRule::ListOutOfOrder { order: list.order.clone(), listed: order.listed, whole });
        }
        order.listed += list.devices.len() as u64;
        Ok(())
    }

    pub(super) fn pause(&mut self, id: &str, paused: bool) -> Result<(), BrokenRule> {
        let order = self.order_mut(id).ok_or_else(|| BrokenRule::OrderUnknown(id.to_owned()))?;
        match (order.paused, paused) {
            (true, true) => return Err(BrokenRule::OrderPaused(id.to_owned())),
            (false, false) => return Err(BrokenRule::OrderNotPaused(id.to_owned())),
            _ => order.paused = paused,
        }
        Ok(())
    }
}

//! ECDSA verification for one P-256 key that has many signatures: an issuer's.
//!
//! A verification adds a multiple of the curve's generator and a multiple of the key (SEC 1 section 4.1.4, step 5).
//! With a table of the key's multiples the second costs an addition for each octet of the scalar, instead of 256
//! doublings and their additions, which is what a verification spends most of its time with. Points are added by
//! aws-lc, numbers modulo the order are p256's; the tables and the sum are all that is made here. All inputs are
//! public, so the time that a verification takes may depend on them.
//!
//! It takes 11 µs instead of the 33 µs of aws-lc's own verification, of some 120 µs a certificate (`cargo bench --bench
//! steps`, benches/RESULTS.md).
//!
//! # What a wrong verdict costs, and what guards against it
//!
//! This is the last check before a certificate leaves. A wrong refusal costs time only: aws-lc judges again. A wrong
//! acceptance would let a certificate out whose signature nobody accepts, so its device cannot connect; it gives nobody
//! a certificate that he should not have, since what is checked is what the HSM signed. Guards:
//!
//! - the tests compare with p256's arithmetic, with aws-lc over damaged and out-of-range signatures, and with Wycheproof;
//! - the first acceptance of each key and one in 1,024 after it is verified again by aws-lc (`verifier.rs`); a difference
//!   ends the process at once, so a fault of the table in memory is found within 1,024 certificates.
#![expect(unsafe_code, reason = "aws-lc's group operations have no safe form")]

use std::{
    ptr::{self, NonNull},
    sync::LazyLock,
};

use aws_lc_sys::{
    EC_GROUP, EC_GROUP_get0_generator, EC_GROUP_new_by_curve_name, EC_POINT, EC_POINT_add, EC_POINT_dup, EC_POINT_free,
    EC_POINT_new, EC_POINT_oct2point, EC_POINT_point2oct, NID_X9_62_prime256v1, point_conversion_form_t,
};
use der::asn1::UintRef;
use p256::{
    FieldBytes, Scalar,
    elliptic_curve::{PrimeField, ops::Reduce},
};

use super::ecdsa::EcdsaSigValue;
use crate::hash::sha256;

#[cfg(test)]
mod tests;

/// The length of a number modulo the curve's order or its field, in octets.
const LENGTH: usize = 32;

/// The first octet of an uncompressed point (SEC 1 section 2.3.3).
const UNCOMPRESSED: u8 = 4;

/// Prefetch distance, in additions: the table is larger than the processor's nearest cache.
const AHEAD: usize = 4;

/// The same for all keys. `None` only if aws-lc has no memory for it.
static GENERATOR: LazyLock<Option<Multiples>> = LazyLock::new(|| Multiples::new(Curve::p256()?.generator()?));

/// Verifies ecdsa-with-SHA256 signatures of one P-256 key. About 2 MB, and as much for the generator once.
#[derive(Debug)]
pub(super) struct FixedKey {
    generator: &'static Multiples,
    key: Multiples,
}

impl FixedKey {
    /// Of an uncompressed point (SEC 1 section 2.3.3). Takes some milliseconds. `None` if it is not a point of P-256.
    pub(super) fn new(point: &[u8]) -> Option<Self> {
        let key = Multiples::new(Curve::p256()?.point(point)?)?;
        Some(FixedKey { generator: GENERATOR.as_ref()?, key })
    }

    /// Whether a DER `Ecdsa-Sig-Value` is this key's over `message`.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.verify(message, signature).is_some()
    }

    /// SEC 1 section 4.1.4, by its steps.
    fn verify(&self, message: &[u8], signature: &[u8]) -> Option<()> {
        let signature = EcdsaSigValue::read(signature).ok()?;
        let (r, s) = (number(&signature.r)?, number(&signature.s)?);
        let e = <Scalar as Reduce<FieldBytes>>::reduce(&sha256(message).into());
        let inverse = Option::<Scalar>::from(s.invert_vartime())?;
        let sum = self.sum(&(e * inverse), &(r * inverse))?;
        let x = <Scalar as Reduce<FieldBytes>>::reduce(&sum.x()?.into());
        (x == r).then_some(())
    }

    /// The generator times one number, plus the key times another.
    fn sum(&self, of_generator: &Scalar, of_key: &Scalar) -> Option<Point> {
        let summands = self.generator.summands(of_generator).chain(self.key.summands(of_key));
        let mut ahead = summands.clone();
        ahead.by_ref().take(AHEAD).for_each(Point::prefetch);
        let mut sum = Point::infinity(self.key.curve)?;
        for summand in summands {
            if let Some(later) = ahead.next() {
                later.prefetch();
            }
            sum.add(summand)?;
        }
        Some(sum)
    }
}

/// A number from 1 to the order less one.
fn number(integer: &UintRef<'_>) -> Option<Scalar> {
    let octets = integer.as_bytes();
    let mut padded = [0; LENGTH];
    padded.get_mut(LENGTH.checked_sub(octets.len())?..)?.copy_from_slice(octets);
    let number = Option::<Scalar>::from(Scalar::from_repr(padded.into()))?;
    (number != Scalar::ZERO).then_some(number)
}

/// For each octet of a number, the least first, the point times 1 to 255 times that octet's weight.
#[derive(Debug)]
struct Multiples {
    curve: Curve,
    rows: Vec<[Point; 255]>,
}

impl Multiples {
    fn new(point: Point) -> Option<Self> {
        let curve = point.curve;
        let mut rows = Vec::with_capacity(LENGTH);
        let mut weight = point;
        for _ in 0..LENGTH {
            let mut row = Vec::with_capacity(255);
            let mut next = weight.copy()?;
            for _ in 0..255 {
                row.push(next.copy()?);
                next.add(&weight)?;
            }
            rows.push(row.try_into().ok()?);
            weight = next;
        }
        Some(Multiples { curve, rows })
    }

    /// What adds up to the point times `number`.
    fn summands(&self, number: &Scalar) -> impl Iterator<Item = &Point> + Clone {
        let octets: [u8; LENGTH] = number.to_repr().into();
        self.rows
            .iter()
            .zip(octets.into_iter().rev())
            .filter_map(|(row, octet)| row.get(usize::from(octet).checked_sub(1)?))
    }
}

/// One of the curves that aws-lc has built in.
#[derive(Clone, Copy, Debug)]
struct Curve(NonNull<EC_GROUP>);

// SAFETY: a built-in curve is never changed nor freed.
unsafe impl Send for Curve {}
// SAFETY: as above.
unsafe impl Sync for Curve {}

impl Curve {
    fn p256() -> Option<Self> {
        // SAFETY: takes a number, gives a built-in curve or null.
        NonNull::new(unsafe { EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1) }).map(Curve)
    }

    fn generator(self) -> Option<Point> {
        // SAFETY: the curve is valid, its generator lives as long as it, and a copy of it is the caller's.
        let copy = unsafe { EC_POINT_dup(EC_GROUP_get0_generator(self.0.as_ptr()), self.0.as_ptr()) };
        NonNull::new(copy).map(|point| Point { curve: self, point })
    }

    /// An uncompressed point as SEC 1 section 2.3.4 reads it: one that is not on the curve is refused. So is the point
    /// at infinity, whose encoding is another.
    fn point(self, octets: &[u8]) -> Option<Point> {
        if octets.first() != Some(&UNCOMPRESSED) {
            return None;
        }
        let point = Point::infinity(self)?;
        let curve = self.0.as_ptr();
        // SAFETY: curve and point are valid, and of `octets` no more is read than there is.
        let read =
            unsafe { EC_POINT_oct2point(curve, point.point.as_ptr(), octets.as_ptr(), octets.len(), ptr::null_mut()) };
        (read == 1).then_some(point)
    }
}

/// A point of a curve.
#[derive(Debug)]
struct Point {
    curve: Curve,
    point: NonNull<EC_POINT>,
}

// SAFETY: a point is memory of its own; aws-lc changes it through `&mut self` alone.
unsafe impl Send for Point {}
// SAFETY: as above.
unsafe impl Sync for Point {}

impl Drop for Point {
    fn drop(&mut self) {
        // SAFETY: it is ours, and freed once.
        unsafe { EC_POINT_free(self.point.as_ptr()) }
    }
}

impl Point {
    fn infinity(curve: Curve) -> Option<Self> {
        // SAFETY: the curve is valid; the new point is ours.
        NonNull::new(unsafe { EC_POINT_new(curve.0.as_ptr()) }).map(|point| Point { curve, point })
    }

    fn copy(&self) -> Option<Self> {
        // SAFETY: curve and point are valid; the copy is ours.
        let copy = unsafe { EC_POINT_dup(self.point.as_ptr(), self.curve.0.as_ptr()) };
        NonNull::new(copy).map(|point| Point { curve: self.curve, point })
    }

    fn add(&mut self, other: &Point) -> Option<()> {
        let own = self.point.as_ptr();
        // SAFETY: all are valid, the result may be one of the summands, and no context is needed.
        let added = unsafe { EC_POINT_add(self.curve.0.as_ptr(), own, own, other.point.as_ptr(), ptr::null_mut()) };
        (added == 1).then_some(())
    }

    /// Has the processor fetch it: a hint, without effect on any result.
    fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        for line in 0..4 {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let address = self.point.as_ptr().cast::<i8>().wrapping_add(64 * line);
            // SAFETY: any address may be prefetched; none is read.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(address) }
        }
    }

    /// The affine x coordinate, big-endian. `None` for the point at infinity, which has none.
    fn x(&self) -> Option<[u8; LENGTH]> {
        let mut octets = [0; 1 + 2 * LENGTH];
        let form = point_conversion_form_t::POINT_CONVERSION_UNCOMPRESSED;
        let (curve, point) = (self.curve.0.as_ptr(), self.point.as_ptr());
        // SAFETY: curve and point are valid, and no more is written than there is room for.
        let written =
            unsafe { EC_POINT_point2oct(curve, point, form, octets.as_mut_ptr(), octets.len(), ptr::null_mut()) };
        if written != octets.len() {
            return None;
        }
        octets.get(1..=LENGTH)?.try_into().ok()
    }
}

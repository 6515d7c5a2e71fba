#include "node/slot_copies.h"

#include <gtest/gtest.h>

namespace bascule::node {
namespace {

const std::set<std::string> kWanted = {"cdc"};

PrimaryLook primary() {
  return {.timeline = {3},
          .session = "started 7 since then",
          .held = 100,
          .insert = {5000},
          .redo = {1000},
          .slots = {{"cdc", {.catalog_xmin = 105, .restart = {4000}, .confirmed = {4800}}}}};
}
LogicalSlots here(Xid catalog_xmin) {
  return {{"cdc", {.catalog_xmin = catalog_xmin, .restart = {3000}, .confirmed = {4500}}}};
}
// Proven in two looks: a checkpoint has to come in between.
SlotLedger proven() {
  PrimaryLook later = primary();
  later.insert = {9000};
  later.redo = {6000};
  return look_again(look_again({}, "i1", primary(), here(105), kWanted), "i1", later, here(105),
                    kWanted);
}
std::string verdict(const SlotLedger& ledger, BeforePromotion at = {"i1", {3}, {8000}, {8000}}) {
  return why_unsound(ledger, at, "cdc", here(105).at("cdc"));
}

TEST(SlotCopies, ACopyIsSoundOnceNothingItNeedsCanHaveBeenRemoved) {
  PrimaryLook look = primary();
  SlotLedger ledger = look_again({}, "i1", look, here(101), kWanted);
  EXPECT_EQ(ledger.copies["cdc"].reach, 105u) << "what the slot itself did not hold may be gone";
  look.redo = {6000};
  ledger = look_again(ledger, "i1", look, here(104), kWanted);
  EXPECT_FALSE(ledger.copies["cdc"].sound) << ledger.copies["cdc"].why;
  look.slots["cdc"].catalog_xmin = 120;  // goes on ahead: held for us by now
  ledger = look_again(ledger, "i1", look, here(105), kWanted);
  EXPECT_TRUE(ledger.copies["cdc"].sound) << ledger.copies["cdc"].why;
}

TEST(SlotCopies, WhatOurSlotHoldsHasToBeOnThePrimarysDisk) {
  const SlotLedger once = look_again({}, "i1", primary(), here(105), kWanted);
  EXPECT_EQ(once.copies.at("cdc").why, "waits for a checkpoint of the primary");
  EXPECT_TRUE(proven().copies.at("cdc").sound);
}

TEST(SlotCopies, OurSlotMayBeAheadOfTheCopy) {
  PrimaryLook look = primary();
  look.held = 110;  // it never goes back
  const SlotLedger ledger = look_again({}, "i1", look, here(105), kWanted);
  EXPECT_EQ(ledger.copies.at("cdc").reach, 110u);
}

TEST(SlotCopies, TransactionIdsGoInACircle) {
  EXPECT_TRUE(at_most(0xFFFFFFF0u, 10));
  EXPECT_FALSE(at_most(10, 0xFFFFFFF0u));
  EXPECT_TRUE(at_most(7, 7));
}

TEST(SlotCopies, AnotherSessionPrimaryOrIncarnationIsProvenAnew) {
  PrimaryLook look = primary();
  look.redo = {9500};
  look.insert = {9900};
  EXPECT_TRUE(look_again(proven(), "i1", look, here(105), kWanted).copies["cdc"].sound);
  EXPECT_FALSE(look_again(proven(), "i2", look, here(105), kWanted).copies["cdc"].sound);
  PrimaryLook other = look;
  other.session = "started 8 since later";
  EXPECT_FALSE(look_again(proven(), "i1", other, here(105), kWanted).copies["cdc"].sound);
  other = look;
  other.timeline = {4};
  EXPECT_FALSE(look_again(proven(), "i1", other, here(105), kWanted).copies["cdc"].sound);
}

TEST(SlotCopies, WithoutFeedbackNothingIsProven) {
  PrimaryLook look = primary();
  look.redo = {9500};
  look.held.reset();
  EXPECT_FALSE(look_again(proven(), "i1", look, here(105), kWanted).copies["cdc"].sound);
  look.held = 100;
  look.session.clear();  // our slot is not in use
  EXPECT_FALSE(look_again(proven(), "i1", look, here(105), kWanted).copies["cdc"].sound);
}

TEST(SlotCopies, ACopyAheadOfTheSlotOrWithoutItIsNone) {
  PrimaryLook look = primary();
  look.redo = {9500};
  look.slots["cdc"].confirmed = {4400};
  EXPECT_FALSE(look_again(proven(), "i1", look, here(105), kWanted).copies["cdc"].sound);
  look.slots.clear();
  EXPECT_FALSE(look_again(proven(), "i1", look, here(105), kWanted).copies["cdc"].sound);
  EXPECT_FALSE(look_again(proven(), "i1", primary(), {}, kWanted).copies["cdc"].sound);
}

TEST(SlotCopies, WhatCanNotBeReadIsUnsoundUntilItCan) {
  LogicalSlots slots = here(105);
  slots["cdc"].problem = "its WAL is gone";
  PrimaryLook look = primary();
  look.redo = {9500};
  SlotLedger ledger = look_again(proven(), "i1", look, slots, kWanted);
  EXPECT_EQ(ledger.copies["cdc"].why, "its WAL is gone");
  ledger = look_again(ledger, "i1", look, here(105), kWanted);
  EXPECT_TRUE(ledger.copies["cdc"].sound);
}

TEST(SlotCopies, OnlyWhatWasProvenOfThisLineGoesIntoAPromotion) {
  EXPECT_EQ(verdict(proven()), "");
  EXPECT_NE(verdict(SlotLedger{}), "");
  EXPECT_NE(verdict(look_again({}, "i1", primary(), here(105), kWanted)), "");
  EXPECT_NE(verdict(proven(), {"i2", {3}, {8000}, {8000}}), "");
  EXPECT_NE(verdict(proven(), {"i1", {4}, {8000}, {8000}}), "");
}

TEST(SlotCopies, WalFromAnArchiveMayHaveBeenWrittenWithoutUs) {
  EXPECT_EQ(verdict(proven(), {"i1", {3}, {9000}, {}}), "") << "written while it was proven";
  EXPECT_EQ(verdict(proven(), {"i1", {3}, {9900}, {9900}}), "");
  EXPECT_NE(verdict(proven(), {"i1", {3}, {9900}, {9800}}), "");
}

TEST(SlotCopies, APrimarysOwnSlotsAreSoundOnItsTimeline) {
  const SlotLedger own = originals("i1", {3}, here(105));
  EXPECT_EQ(verdict(own, {"i1", {3}, {9900}, {}}), "");
  EXPECT_NE(verdict(own, {"i1", {4}, {9900}, {}}), "");
  // As a standby of the next primary it is a copy as any other.
  EXPECT_FALSE(look_again(own, "i1", primary(), here(105), kWanted).copies["cdc"].sound);
}

TEST(SlotCopies, TheLedgerSurvivesTheAgent) {
  const auto read = decode_slot_ledger(encode(proven()));
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(*read, proven());
  EXPECT_FALSE(decode_slot_ledger("[]"));
}

TEST(SlotCopies, ACopyFollowsTheConsumerAsFarAsItHasReplayed) {
  const LogicalSlot there = primary().slots.at("cdc");
  LogicalSlot copy = here(105).at("cdc");
  EXPECT_EQ(advance_to(there, copy, {4700}), Lsn{4700});
  EXPECT_EQ(advance_to(there, copy, {9000}), Lsn{4800});
  EXPECT_EQ(advance_to(there, copy, {4000}), std::nullopt);
  copy.confirmed = {4800};
  EXPECT_EQ(advance_to(there, copy, {9000}), std::nullopt);
  copy.problem = "not read yet";
  EXPECT_EQ(advance_to(there, copy, {9000}), Lsn{4800});
}

TEST(SlotState, DamagedOrForeignFilesAreRefused) {
  std::string file(16 + 184, '\0');
  file.replace(0, 4, "\xA1\x1C\x05\x01");
  file.replace(4, 4, std::string("\x99\xfa\x6b\x8f", 4));
  file[8] = 2;
  file[12] = static_cast<char>(184);
  file.replace(16, 3, "cdc");
  ASSERT_TRUE(check_slot_state(file, "cdc")) << check_slot_state(file, "cdc").error().message;
  EXPECT_FALSE(check_slot_state(file, "other"));
  EXPECT_FALSE(check_slot_state(file.substr(0, 150), "cdc"));
  std::string damaged = file;
  damaged[120] = 1;
  EXPECT_FALSE(check_slot_state(damaged, "cdc"));
  EXPECT_FALSE(check_slot_state("", "cdc"));
}

}  // namespace
}  // namespace bascule::node

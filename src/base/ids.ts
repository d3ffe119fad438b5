/**
 * Branded identifiers. They are plain numbers or strings at run time; the brand keeps a term from being
 * passed where an index is meant. Use the lower-case constructor of the same name to make one.
 */
declare const brand: unique symbol;
export type Brand<T, B extends string> = T & { readonly [brand]: B };

/** A node of the cluster; positive, never used again once removed. 0 stands for "nobody". */
export type NodeId = Brand<number, "NodeId">;
/** A Raft group. Ranges, the coordinator and meta are groups. */
export type GroupId = Brand<number, "GroupId">;
export type Term = Brand<number, "Term">;
/** Position in a group's log; the first entry has index 1. */
export type LogIndex = Brand<number, "LogIndex">;
/** Chosen by the gateway before anything is proposed; names where its outcome is recorded. */
export type TransactionId = Brand<string, "TransactionId">;

export const nodeId = (n: number): NodeId => n as NodeId;
export const groupId = (n: number): GroupId => n as GroupId;
export const term = (n: number): Term => n as Term;
export const logIndex = (n: number): LogIndex => n as LogIndex;
export const transactionId = (s: string): TransactionId => s as TransactionId;

export const NO_NODE = nodeId(0);

/** Groups that exist from bootstrap on have fixed ids. */
export const META_GROUP = groupId(1);
/** @public kept for groups to come: its id is never another group's. */
export const COORDINATOR_GROUP = groupId(2);
export const FIRST_RANGE_GROUP = groupId(3);
